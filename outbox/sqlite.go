package outbox

import (
	"embed"
	"io/fs"
	"net/url"
)

//go:embed migrations
var migrations embed.FS

// SQLite is the dialect of SQLite 3.42 and later, through modernc.org/sqlite.
// Open the database with SQLiteDSN. It is immutable.
var SQLite = newSQLite()

// SQLiteDSN is the data source name for a file that suits an outbox: write-ahead
// log, durable commits, ten seconds of patience with the other writer, and
// transactions that take the write lock when they begin (one that reads first
// and writes later would otherwise fail with SQLITE_BUSY under load).
func SQLiteDSN(path string) string {
	v := url.Values{}
	v.Add("_pragma", "busy_timeout(10000)") // first: the others may have to wait
	v.Add("_pragma", "journal_mode(WAL)")
	v.Add("_pragma", "synchronous(FULL)")
	v.Add("_txlock", "immediate")
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: v.Encode()}).String()
}

// now is the database's clock in microseconds since 1970, at the millisecond.
const sqliteNow = `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`

const (
	sqliteInsert = `INSERT INTO amends_outbox_{p} (msg_id, topic, msg_key, body, headers, idem_key, created_at) VALUES `
	sqliteRow    = `(?, ?, ?, ?, ?, ?, ` + sqliteNow + `)`
	sqliteRead   = `SELECT ` + partitionColumns + `
FROM amends_outbox_{p} WHERE id > ? ORDER BY id LIMIT ?`
	sqliteIDs    = `SELECT id FROM amends_outbox_{p} WHERE id > ? AND id <= ? ORDER BY id`
	sqliteRemove = `DELETE FROM amends_outbox_{p} WHERE id BETWEEN ? AND ?`
	sqliteCount  = `SELECT count(*) FROM amends_outbox_{p}`
	sqliteOldest = `SELECT ` + sqliteNow + ` - created_at FROM amends_outbox_{p} ORDER BY id LIMIT 1`
	sqliteRevive = `INSERT INTO amends_outbox_{p} (msg_id, topic, msg_key, body, headers, idem_key, created_at)
SELECT msg_id, topic, msg_key, body, headers, idem_key, created_at FROM amends_outbox_dead WHERE id = ?`

	sqlitePeek    = `SELECT owner, epoch, expires_at <= ` + sqliteNow + ` FROM amends_outbox_owner WHERE part = ?`
	sqliteAcquire = `UPDATE amends_outbox_owner SET owner = ?, epoch = epoch + 1, expires_at = ` + sqliteNow + ` + ?
WHERE part = ? AND epoch = ? AND expires_at <= ` + sqliteNow
	sqliteRenew   = `UPDATE amends_outbox_owner SET expires_at = ` + sqliteNow + ` + ? WHERE part = ? AND epoch = ?`
	sqliteRelease = `UPDATE amends_outbox_owner SET expires_at = 0 WHERE part = ? AND epoch = ?`

	sqliteDeadAdd = `INSERT INTO amends_outbox_dead
(part, msg_id, topic, msg_key, body, headers, idem_key, created_at, failed_at, attempts, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ` + sqliteNow + `, ?, ?)`
	sqliteDeadList = `SELECT id, part, msg_id, topic, msg_key, CASE WHEN ? = 1 THEN x'' ELSE body END, headers, idem_key,
created_at, failed_at, attempts, error, length(body)
FROM amends_outbox_dead WHERE id > ? AND (? = '' OR topic = ?) AND (? = x'' OR msg_key = ?) ORDER BY id LIMIT ?`
	sqliteDeadPart   = `SELECT part FROM amends_outbox_dead WHERE id = ?`
	sqliteDeadRemove = `DELETE FROM amends_outbox_dead WHERE id = ?`
	sqliteDeadCount  = `SELECT count(*) FROM amends_outbox_dead`

	sqliteClaim = `INSERT INTO amends_inbox (claim_key, claimed_at, reply) VALUES (?, ` + sqliteNow + `, ?)
ON CONFLICT (claim_key) DO NOTHING`
	sqliteReply  = `SELECT reply FROM amends_inbox WHERE claim_key = ?`
	sqliteRecord = `UPDATE amends_inbox SET reply = ? WHERE claim_key = ?`
	sqlitePurge  = `DELETE FROM amends_inbox WHERE claim_key IN
(SELECT claim_key FROM amends_inbox WHERE claimed_at < ? AND instr(claim_key, x'00') > 0 ORDER BY claimed_at LIMIT ?)`

	sqliteMigrations = `CREATE TABLE IF NOT EXISTS amends_migrations (
component TEXT NOT NULL, version TEXT NOT NULL, applied_at INTEGER NOT NULL, PRIMARY KEY (component, version))`
	sqliteHasMigration = `SELECT count(*) FROM amends_migrations WHERE component = ? AND version = ?`
	sqliteAddMigration = `INSERT INTO amends_migrations (component, version, applied_at)
VALUES (?, ?, ` + sqliteNow + `) ON CONFLICT DO NOTHING`
)

func newSQLite() *Dialect {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		panic("outbox: " + err.Error()) // the path is a constant and legal
	}
	return &Dialect{
		name:       "sqlite",
		migrations: dir,
		part: forPartitions(partitionSQL{
			insert: sqliteInsert, row: sqliteRow, read: sqliteRead, ids: sqliteIDs,
			remove: sqliteRemove, count: sqliteCount, oldest: sqliteOldest, revive: sqliteRevive,
		}),
		owner:   ownerSQL{peek: sqlitePeek, acquire: sqliteAcquire, renew: sqliteRenew, release: sqliteRelease},
		dead:    deadSQL{add: sqliteDeadAdd, list: sqliteDeadList, part: sqliteDeadPart, remove: sqliteDeadRemove, count: sqliteDeadCount},
		aside:   newAsideSQL(sqliteNow, ""),
		levels:  newLevelsSQL(sqliteNow),
		operate: newOperateSQL(sqliteNow, "", "ON CONFLICT (request_id) DO NOTHING"),
		inbox:   InboxSQL{Claim: sqliteClaim, Reply: sqliteReply, Record: sqliteRecord, Purge: sqlitePurge},
		migrated: migrationSQL{
			create: sqliteMigrations, has: sqliteHasMigration, add: sqliteAddMigration,
		},
	}
}
