package inbox

import "github.com/amends-dev/amends/outbox"

// statements are those of marks and parked messages, by dialect. Times are microseconds since 1970 by the database's
// clock.
type statements struct {
	mark       string // (key, seq, id, seq, id, seq): inserts, or raises the mark and keeps the old one as prior
	touch      string // (key): inserts without a mark, or locks what is there
	readMark   string // (key): mark, prior, aside, last_id
	setAside   string // (mark, aside, last_id, key)
	purgeMarks string // (before, limit)

	park      string // (key, id): inserts unless it is there
	head      string // (key): the id of the lowest row
	parked    string // (key, id): 1 if it is there
	unpark    string // (key, id)
	unparkOld string // (before, limit)
	unclaim   string // (key): of a claim made in the same transaction
}

// none is the mark of a key of which nothing was handled, and what is set aside when nothing is.
const none = "-9223372036854775808"

const (
	mysqlNow = `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))`
	// Assignments are made from left to right: prior and last_id need the mark as it was.
	mysqlMark = `INSERT INTO amends_inbox_marks (mark_key, mark, prior, aside, last_id, touched_at)
VALUES (?, ?, ` + none + `, ` + none + `, ?, ` + mysqlNow + `)
ON DUPLICATE KEY UPDATE prior = mark, last_id = IF(mark < ?, ?, last_id), mark = GREATEST(mark, ?), touched_at = ` + mysqlNow
	mysqlTouch = `INSERT INTO amends_inbox_marks (mark_key, mark, prior, aside, last_id, touched_at)
VALUES (?, ` + none + `, ` + none + `, ` + none + `, '', ` + mysqlNow + `) ON DUPLICATE KEY UPDATE touched_at = ` + mysqlNow
	mysqlPurgeMarks = `DELETE FROM amends_inbox_marks WHERE touched_at < ? LIMIT ?`
	mysqlPark       = `INSERT INTO amends_inbox_parked (park_key, msg_id, parked_at) VALUES (?, ?, ` + mysqlNow + `)
ON DUPLICATE KEY UPDATE parked_at = parked_at`
	mysqlUnparkOld = `DELETE FROM amends_inbox_parked WHERE parked_at < ? LIMIT ?`

	sqliteNow  = `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`
	sqliteMark = `INSERT INTO amends_inbox_marks (mark_key, mark, prior, aside, last_id, touched_at)
VALUES (?, ?, ` + none + `, ` + none + `, ?, ` + sqliteNow + `)
ON CONFLICT (mark_key) DO UPDATE SET prior = mark, last_id = iif(mark < ?, ?, last_id), mark = max(mark, ?), touched_at = ` + sqliteNow
	sqliteTouch = `INSERT INTO amends_inbox_marks (mark_key, mark, prior, aside, last_id, touched_at)
VALUES (?, ` + none + `, ` + none + `, ` + none + `, x'', ` + sqliteNow + `) ON CONFLICT (mark_key) DO UPDATE SET touched_at = ` + sqliteNow
	sqlitePurgeMarks = `DELETE FROM amends_inbox_marks WHERE mark_key IN
(SELECT mark_key FROM amends_inbox_marks WHERE touched_at < ? LIMIT ?)`
	sqlitePark = `INSERT INTO amends_inbox_parked (park_key, msg_id, parked_at) VALUES (?, ?, ` + sqliteNow + `)
ON CONFLICT (park_key, msg_id) DO NOTHING`
	sqliteUnparkOld = `DELETE FROM amends_inbox_parked WHERE id IN
(SELECT id FROM amends_inbox_parked WHERE parked_at < ? ORDER BY id LIMIT ?)`

	readMark = `SELECT mark, prior, aside, last_id FROM amends_inbox_marks WHERE mark_key = ?`
	setAside = `UPDATE amends_inbox_marks SET mark = ?, aside = ?, last_id = ? WHERE mark_key = ?`
	head     = `SELECT msg_id FROM amends_inbox_parked WHERE park_key = ? ORDER BY id LIMIT 1`
	parked   = `SELECT count(*) FROM amends_inbox_parked WHERE park_key = ? AND msg_id = ?`
	unpark   = `DELETE FROM amends_inbox_parked WHERE park_key = ? AND msg_id = ?`
	unclaim  = `DELETE FROM amends_inbox WHERE claim_key = ?`
)

// statementsOf are a dialect's.
func statementsOf(d *outbox.Dialect) *statements {
	s := &statements{
		mark: sqliteMark, touch: sqliteTouch, purgeMarks: sqlitePurgeMarks, park: sqlitePark, unparkOld: sqliteUnparkOld,
		readMark: readMark, setAside: setAside, head: head, parked: parked, unpark: unpark, unclaim: unclaim,
	}
	if d == outbox.MySQL {
		s.mark, s.touch, s.purgeMarks, s.park, s.unparkOld = mysqlMark, mysqlTouch, mysqlPurgeMarks, mysqlPark, mysqlUnparkOld
	}
	return s
}
