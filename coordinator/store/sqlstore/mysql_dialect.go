package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"

	"github.com/go-sql-driver/mysql"
)

// mysqlKeepNewer compares with the row's version in each assignment, and
// assigns the version last: servers assign from left to right.
const mysqlKeepNewer = ` ON DUPLICATE KEY UPDATE
 state = IF(VALUES(version) > version, VALUES(state), state),
 paused = IF(VALUES(version) > version, VALUES(paused), paused),
 stalled = IF(VALUES(version) > version, VALUES(stalled), stalled),
 waits_for = IF(VALUES(version) > version, VALUES(waits_for), waits_for),
 reason = IF(VALUES(version) > version, VALUES(reason), reason),
 updated_at = IF(VALUES(version) > version, VALUES(updated_at), updated_at),
 deadline = IF(VALUES(version) > version, VALUES(deadline), deadline),
 next_at = IF(VALUES(version) > version, VALUES(next_at), next_at),
 finished_at = IF(VALUES(version) > version, VALUES(finished_at), finished_at),
 event_seq = IF(VALUES(version) > version, VALUES(event_seq), event_seq),
 event_hash = IF(VALUES(version) > version, VALUES(event_hash), event_hash),
 body = IF(VALUES(version) > version, VALUES(body), body),
 trail = IF(VALUES(version) > version, CONCAT(trail, VALUES(trail)), trail),
 version = GREATEST(version, VALUES(version))`

const mysqlKeepMember = ` ON DUPLICATE KEY UPDATE address = VALUES(address), version = VALUES(version),
 draining = VALUES(draining), started_at = VALUES(started_at), expires_at = VALUES(expires_at)`

// mysqlDialect is for servers that take statements of up to maxPacket bytes.
// Its locks are FOR UPDATE only, which every such server has (TiDB neither
// shares locks nor skips locked rows).
func mysqlDialect(maxPacket int) (*dialect, error) {
	files, err := fs.Sub(migrations, "migrations/mysql")
	if err != nil {
		return nil, err
	}
	return &dialect{
		name:       "mysql",
		migrations: files,
		now:        `TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', UTC_TIMESTAMP(6))`,
		lock:       ` FOR UPDATE`,
		keepNewer:  mysqlKeepNewer,
		// Not INSERT IGNORE, which would cut values to fit and call it a warning.
		elseKeep:   func(column string) string { return ` ON DUPLICATE KEY UPDATE ` + column + ` = ` + column },
		keepMember: mysqlKeepMember,
		use:        func(index string) string { return ` FORCE INDEX (` + index + `)` },
		join:       `STRAIGHT_JOIN`,
		deleteFrom: func(table, index string) string {
			return `DELETE t FROM ` + table + ` t FORCE INDEX (` + index + `)`
		},
		newest:  `newest`,
		negated: true,
		ended:   liveIndex,
		// Prepared, a large statement takes the server about half the time.
		rowCounts: []int{256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1},
		fillUp:    true,
		maxVars:   65535,
		maxLeases: 256,
		maxBytes:  min(maxPacket/4*3, 4<<20),
		inTx:      func(ctx context.Context) context.Context { return ctx },
		again:     mysqlAgain,
		done:      mysqlDone,
		explain:   explainMySQL,
	}, nil
}

// Errors by which a server says that a transaction was rolled back, or a
// connection ended, for no fault of its own. TiDB's begin at 8000.
var mysqlTransient = []uint16{
	1205,             // lock wait timeout
	1213,             // deadlock
	1020,             // the record has changed since it was read
	1040,             // too many connections
	1203,             // the user's connections
	1226,             // the user's resources
	1053,             // the server is shutting down
	1047,             // Galera: the node is not ready
	1180,             // error during commit, as Galera words a conflict
	3032, 3100, 3101, // Group Replication: offline, refused or rolled back at commit
	1158, 1159, 1160, 1161, // the network, as the server saw it
	1317,       // KILL QUERY
	1927, 3169, // KILL, MariaDB and MySQL
	4031,       // the server ended a connection that was idle
	8002, 8022, // TiDB: conflict
	8028,             // TiDB: the schema changed meanwhile
	9001, 9002, 9003, // TiDB: PD or TiKV is busy or slow
	9004, 9005, 9007, // TiDB: locks, regions, conflicts
}

// mysqlAgain implements dialect.again.
func mysqlAgain(err error) bool {
	var said *mysql.MySQLError
	if errors.As(err, &said) {
		return slices.Contains(mysqlTransient, said.Number)
	}
	for _, lost := range []error{driver.ErrBadConn, mysql.ErrInvalidConn, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, lost) {
			return true
		}
	}
	var network *net.OpError
	return errors.As(err, &network)
}

// mysqlDone implements dialect.done: a column or a key is there already, or
// is gone.
func mysqlDone(err error) bool {
	var said *mysql.MySQLError
	return errors.As(err, &said) && slices.Contains([]uint16{1060, 1061, 1091}, said.Number)
}

// What a person can do about errors of a server.
var mysqlAdvice = map[uint16]string{
	1044: "the user may not use this database: GRANT it all privileges on it",
	1045: "the server refuses user or password: see the DSN",
	1049: "the database is not there: CREATE DATABASE",
	1142: "the user lacks a privilege: GRANT it all privileges on the database",
	1406: "a name, a label or a digest is longer than the store keeps: shorten it",
	1153: "a transaction is larger than the server's max_allowed_packet: raise that",
	1105: "the server refuses a parameter, most likely one larger than max_allowed_packet: raise that",
	1461: "the server has no room for more prepared statements: raise max_prepared_stmt_count, or lower MaxConns",
	1665: "the server logs statements, which does not go with READ COMMITTED: set binlog_format to ROW or MIXED",
	1021: "the server's disk is full: make room",
	1114: "the server has no room for more rows: make room",
}

func explainMySQL(err error) error {
	var said *mysql.MySQLError
	switch {
	case errors.Is(err, mysql.ErrPktTooLarge):
		return fmt.Errorf("%s: %w", mysqlAdvice[1153], err)
	case errors.As(err, &said) && mysqlAdvice[said.Number] != "":
		return fmt.Errorf("%s: %w", mysqlAdvice[said.Number], err)
	}
	return err
}
