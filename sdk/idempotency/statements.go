package idempotency

import (
	"database/sql"
	"strings"

	"github.com/amends-dev/amends/outbox"
)

// statements are how one kind of database is spoken to. Times are microseconds
// since 1970 by the database's clock. None but record ever runs in a transaction
// with others, and record touches one row by its primary key, so that no two of
// them wait for each other in a circle.
type statements struct {
	look    string // (key): fingerprint, token, status, header, body, whether it runs, whether it is past its time
	insert  string // (key, fingerprint, token, lease, retention): inserts unless it is there; exactly one row affected means inserted
	take    string // (fingerprint, token, lease, retention, key, token seen): only from a dead or an expired one
	record  string // (status, header, body, key, token)
	release string // (key, token)
	purge   string // (limit)

	isolation sql.IsolationLevel // for purge
}

const (
	sqliteNow = `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`
	mysqlNow  = `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))`

	lookRow = `SELECT fingerprint, token, status, header, body, lease_until > {now}, expires_at <= {now}
FROM amends_idempotency WHERE request_key = ?`
	insertRow = `INSERT INTO amends_idempotency
(request_key, fingerprint, token, status, header, body, lease_until, expires_at, touched)
VALUES (?, ?, ?, 0, '', '', {now} + ?, {now} + ?, 0) `
	takeRow = `UPDATE amends_idempotency SET fingerprint = ?, token = ?, status = 0, header = '', body = '',
lease_until = {now} + ?, expires_at = {now} + ?, touched = touched + 1
WHERE request_key = ? AND token = ? AND (status = 0 AND lease_until <= {now} OR status > 0 AND expires_at <= {now})`
	recordRow = `UPDATE amends_idempotency SET status = ?, header = ?, body = ?, touched = touched + 1
WHERE request_key = ? AND token = ?`
	releaseRow = `DELETE FROM amends_idempotency WHERE request_key = ? AND token = ? AND status = 0`
	purgeRows  = `expires_at <= {now} AND (status > 0 OR lease_until <= {now}) ORDER BY expires_at LIMIT ?`
)

// statementsOf are the statements of a dialect; ok is false for one that this
// package does not know.
func statementsOf(d *outbox.Dialect) (s statements, ok bool) {
	switch d {
	case outbox.SQLite:
		s = newStatements(sqliteNow, `ON CONFLICT (request_key) DO NOTHING`,
			`DELETE FROM amends_idempotency WHERE request_key IN (SELECT request_key FROM amends_idempotency WHERE `+purgeRows+`)`)
	case outbox.MySQL:
		// One row affected is a new one, two are one that was there, whether or not
		// the connection counts found rows.
		s = newStatements(mysqlNow, `ON DUPLICATE KEY UPDATE touched = touched + 1`,
			`DELETE FROM amends_idempotency WHERE `+purgeRows)
		s.isolation = sql.LevelReadCommitted // no gaps locked in front of those who insert
	default:
		return statements{}, false
	}
	return s, true
}

// newStatements fills the clock in.
func newStatements(now, unlessThere, purge string) statements {
	in := func(s string) string { return strings.ReplaceAll(s, "{now}", now) }
	return statements{
		look: in(lookRow), insert: in(insertRow + unlessThere), take: in(takeRow),
		record: recordRow, release: releaseRow, purge: in(purge),
	}
}
