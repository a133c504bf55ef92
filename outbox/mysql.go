package outbox

import (
	"database/sql"
	"errors"
	"io/fs"
	"reflect"
	"slices"
)

// MySQL is the dialect of MySQL 8.0, MariaDB 10.6 and TiDB, and later, through
// github.com/go-sql-driver/mysql with any of its options. It is immutable.
//
// Connect to the primary: a replica shows rows late. Where several primaries give
// out ids with offsets (Galera), let one of them have all the writes: the order
// of a key is that of its ids. TiDB has to keep its default of pessimistic
// transactions.
//
// A transaction that runs at SERIALIZABLE should write to an Outbox whose
// Config.MaxRows is negative: there, counting the rows locks them.
var MySQL = newMySQL()

// now is the database's clock in microseconds since 1970, whatever the session's
// time zone.
const mysqlNow = `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))`

const (
	mysqlInsert = `INSERT INTO amends_outbox_{p} (msg_id, topic, msg_key, body, headers, idem_key, created_at) VALUES `
	mysqlRow    = `(?, ?, ?, ?, ?, ?, ` + mysqlNow + `)`
	mysqlRead   = `SELECT ` + partitionColumns + `
FROM amends_outbox_{p} WHERE id > ? ORDER BY id LIMIT ?`
	mysqlIDs    = `SELECT id FROM amends_outbox_{p} WHERE id > ? AND id <= ? ORDER BY id`
	mysqlRemove = `DELETE FROM amends_outbox_{p} WHERE id BETWEEN ? AND ?`
	mysqlCount  = `SELECT count(*) FROM amends_outbox_{p}`
	mysqlOldest = `SELECT ` + mysqlNow + ` - created_at FROM amends_outbox_{p} ORDER BY id LIMIT 1`
	mysqlRevive = `INSERT INTO amends_outbox_{p} (msg_id, topic, msg_key, body, headers, idem_key, created_at)
SELECT msg_id, topic, msg_key, body, headers, idem_key, created_at FROM amends_outbox_dead WHERE id = ?`

	mysqlPeek    = `SELECT owner, epoch, expires_at <= ` + mysqlNow + ` FROM amends_outbox_owner WHERE part = ?`
	mysqlAcquire = `UPDATE amends_outbox_owner SET owner = ?, epoch = epoch + 1, expires_at = ` + mysqlNow + ` + ?
WHERE part = ? AND epoch = ? AND expires_at <= ` + mysqlNow
	mysqlRenew   = `UPDATE amends_outbox_owner SET expires_at = ` + mysqlNow + ` + ? WHERE part = ? AND epoch = ?`
	mysqlRelease = `UPDATE amends_outbox_owner SET expires_at = 0 WHERE part = ? AND epoch = ?`

	mysqlDeadAdd = `INSERT INTO amends_outbox_dead
(part, msg_id, topic, msg_key, body, headers, idem_key, created_at, failed_at, attempts, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ` + mysqlNow + `, ?, ?)`
	mysqlDeadList = `SELECT id, part, msg_id, topic, msg_key, CASE WHEN ? = 1 THEN x'' ELSE body END, headers, idem_key,
created_at, failed_at, attempts, error, length(body)
FROM amends_outbox_dead WHERE id > ? AND (? = '' OR topic = ?) AND (? = x'' OR msg_key = ?) ORDER BY id LIMIT ?`
	mysqlDeadPart   = `SELECT part FROM amends_outbox_dead WHERE id = ?`
	mysqlDeadRemove = `DELETE FROM amends_outbox_dead WHERE id = ?`
	mysqlDeadCount  = `SELECT count(*) FROM amends_outbox_dead`

	// One row affected is a new one, two are one that was there, whether or not
	// the connection counts found rows. The existing row is locked exclusively at
	// once, so that two duplicates do not deadlock over it, and it becomes visible
	// to a plain SELECT of this transaction, however old its snapshot.
	mysqlClaim = `INSERT INTO amends_inbox (claim_key, claimed_at, touched, reply) VALUES (?, ` + mysqlNow + `, 0, ?)
ON DUPLICATE KEY UPDATE touched = touched + 1`
	mysqlReply  = `SELECT reply FROM amends_inbox WHERE claim_key = ?`
	mysqlRecord = `UPDATE amends_inbox SET reply = ?, touched = touched + 1 WHERE claim_key = ?`
	mysqlPurge  = `DELETE FROM amends_inbox WHERE claimed_at < ? AND LOCATE(X'00', claim_key) > 0 ORDER BY claimed_at LIMIT ?`

	mysqlMigrations = `CREATE TABLE IF NOT EXISTS amends_migrations (
component VARBINARY(64) NOT NULL, version VARBINARY(128) NOT NULL, applied_at BIGINT NOT NULL,
PRIMARY KEY (component, version)) ENGINE = InnoDB`
	mysqlHasMigration = `SELECT count(*) FROM amends_migrations WHERE component = ? AND version = ?`
	mysqlAddMigration = `INSERT IGNORE INTO amends_migrations (component, version, applied_at)
VALUES (?, ?, ` + mysqlNow + `)`
)

func newMySQL() *Dialect {
	dir, err := fs.Sub(migrations, "migrations/mysql")
	if err != nil {
		panic("outbox: " + err.Error()) // the path is a constant and legal
	}
	return &Dialect{
		name:       "mysql",
		migrations: dir,
		// At REPEATABLE READ a range delete would lock the gaps that writers insert into.
		isolation: sql.LevelReadCommitted,
		retryable: mysqlRetryable,
		part: forPartitions(partitionSQL{
			insert: mysqlInsert, row: mysqlRow, read: mysqlRead, ids: mysqlIDs,
			remove: mysqlRemove, count: mysqlCount, oldest: mysqlOldest, revive: mysqlRevive,
		}),
		owner:   ownerSQL{peek: mysqlPeek, acquire: mysqlAcquire, renew: mysqlRenew, release: mysqlRelease},
		dead:    deadSQL{add: mysqlDeadAdd, list: mysqlDeadList, part: mysqlDeadPart, remove: mysqlDeadRemove, count: mysqlDeadCount},
		aside:   newAsideSQL(mysqlNow, " FOR UPDATE"),
		levels:  newLevelsSQL(mysqlNow),
		operate: newOperateSQL(mysqlNow, " FOR UPDATE", "ON DUPLICATE KEY UPDATE touched = touched + 1"),
		inbox: InboxSQL{Claim: mysqlClaim, Reply: mysqlReply, Record: mysqlRecord, Purge: mysqlPurge,
			Isolation: sql.LevelReadCommitted},
		source: mysqlSource(),
		migrated: migrationSQL{
			create: mysqlMigrations, has: mysqlHasMigration, add: mysqlAddMigration,
		},
	}
}

// mysqlTransient are the server's errors for a transaction that met another one
// and that may succeed when it is run again from its beginning.
var mysqlTransient = []uint64{
	1020,                   // MariaDB, innodb_snapshot_isolation: the row has changed since the snapshot
	1205,                   // lock wait timeout
	1213,                   // deadlock, and Galera's failed certification
	8002, 8022, 8028, 9007, // TiDB: write conflict, or the schema changed meanwhile
}

func mysqlRetryable(err error) bool { return slices.Contains(mysqlTransient, mysqlNumber(err)) }

// mysqlNumber is the number of the server's error in err's tree, 0 when there is
// none. It looks for the driver's error by its shape, a struct with a uint16
// Number: the driver is the user's, and this package does not link one.
func mysqlNumber(err error) uint64 {
	if err == nil {
		return 0
	}
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() == reflect.Struct {
		if n := v.FieldByName("Number"); n.IsValid() && n.Kind() == reflect.Uint16 {
			return n.Uint()
		}
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if n := mysqlNumber(e); n != 0 {
				return n
			}
		}
		return 0
	}
	return mysqlNumber(errors.Unwrap(err))
}
