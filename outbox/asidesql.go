package outbox

import (
	"math"
	"strconv"
	"strings"
)

// parked is due_at of a parked row: it never comes.
const parked = math.MaxInt64

// asideSQL are the statements on amends_outbox_aside. Templates are as in
// operateSQL. Times are microseconds since 1970 by the database's clock.
type asideSQL struct {
	now         string // the database's clock
	next        string // (part): until the first row is due, negative when it is; NULL when there is none
	read        string // (part, limit): the due ones, those of a key in order
	keys        string // (part, keys): those of them that are there
	last        string // (part, key): due_at of its last row
	add         string // followed by one addRow or several, with commas between them
	addRow      string // (part … created_at, not_before, due_at, attempts, poison, error, failed_at)
	remove      string // (from id, to id)
	postpone    string // (due, part, key, due): not before, of a key
	postponeOne string // (due, id, due)
	failed      string // (attempts, poison, error, id)
	tally       tallySQL

	lock     string // (part): makes the relay's settlements wait for the end of the transaction
	at       string // (id, part): key
	rows     string // (part, key): id, not_before, due_at of its rows in order
	due      string // (part, key): due_at of its last row that is not parked, 0 without one
	release  string // (due, ids)
	bury     string // (error, ids): copies into the dead letters
	removeIn string // (ids)
	lockIn   string // (ids): id, part, msg_id, msg_key, not_before, due_at, locked, in order
	waiting  string // (part, after id, topic, topic, key, key, limit): those that are not parked, without bodies
	blocked  string // (part, after id, limit): those that failed
	ofKeys   string // (part, keys): key, rows
	topics   string // (part): topic, rows, time since the first was due
	count    string // rows that are parked; that are not; since when the first of these was due, NULL when none was
	blocks   string // (part): number of rows that failed

	parkedList string // (without bodies, after id, topic, topic, key, key, limit): as dead letters
	parkedGet  string // (id)
	parkedPick string // (topic, topic, key, key, limit): ids
	before     string // (part, key, id): parked rows of the key in front of it
}

const (
	asideNextSQL = `SELECT min(due_at) - {now} FROM amends_outbox_aside WHERE part = ?`
	asideReadSQL = `SELECT id, msg_id, topic, msg_key, body, headers, idem_key, created_at, attempts
FROM amends_outbox_aside WHERE part = ? AND due_at <= {now} ORDER BY due_at, id LIMIT ?`
	asideKeysSQL = `SELECT DISTINCT msg_key FROM amends_outbox_aside WHERE part = ? AND msg_key IN ({in})`
	asideLastSQL = `SELECT due_at FROM amends_outbox_aside WHERE part = ? AND msg_key = ? ORDER BY id DESC LIMIT 1`
	asideAddSQL  = `INSERT INTO amends_outbox_aside (part, msg_id, topic, msg_key, body, headers, idem_key, created_at,
not_before, due_at, attempts, poison, error, failed_at) VALUES `
	asideRowSQL         = `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	asideRemoveSQL      = `DELETE FROM amends_outbox_aside WHERE id BETWEEN ? AND ?`
	asidePostponeSQL    = `UPDATE amends_outbox_aside SET due_at = ? WHERE part = ? AND msg_key = ? AND due_at < ?`
	asidePostponeOneSQL = `UPDATE amends_outbox_aside SET due_at = ? WHERE id = ? AND due_at < ?`
	asideFailedSQL      = `UPDATE amends_outbox_aside SET attempts = ?, poison = ?, error = ?, failed_at = {now} WHERE id = ?`

	asideLockSQL    = `SELECT epoch FROM amends_outbox_owner WHERE part = ?{lock}`
	asideAtSQL      = `SELECT msg_key FROM amends_outbox_aside WHERE id = ? AND part = ?`
	asideRowsSQL    = `SELECT id, not_before, due_at FROM amends_outbox_aside WHERE part = ? AND msg_key = ? ORDER BY id`
	asideDueSQL     = `SELECT COALESCE(max(due_at), 0) FROM amends_outbox_aside WHERE part = ? AND msg_key = ? AND due_at < {parked}`
	asideReleaseSQL = `UPDATE amends_outbox_aside SET due_at = ?, attempts = 0, poison = 0, error = {empty}, failed_at = 0
WHERE id IN ({in})`
	asideBurySQL = `INSERT INTO amends_outbox_dead
(part, msg_id, topic, msg_key, body, headers, idem_key, created_at, failed_at, attempts, error)
SELECT part, msg_id, topic, msg_key, body, headers, idem_key, created_at, {now}, attempts,
CASE WHEN length(error) > 0 THEN error ELSE ? END FROM amends_outbox_aside WHERE id IN ({in}) ORDER BY id`
	asideRemoveInSQL = `DELETE FROM amends_outbox_aside WHERE id IN ({in})`
	asideLockInSQL   = `SELECT id, part, msg_id, msg_key, not_before, due_at FROM amends_outbox_aside
WHERE id IN ({in}) ORDER BY id{lock}`
	asideWaitingSQL = `SELECT id, msg_id, topic, msg_key, length(body), idem_key, created_at, not_before
FROM amends_outbox_aside WHERE part = ? AND due_at < {parked} AND id > ? AND (? = '' OR topic = ?) AND (? = {empty} OR msg_key = ?)
ORDER BY id LIMIT ?`
	asideBlockedSQL = `SELECT id, msg_id, topic, msg_key, attempts, poison, error, failed_at, due_at
FROM amends_outbox_aside WHERE part = ? AND id > ? AND (poison = 1 OR attempts >= {noted}) ORDER BY id LIMIT ?`
	asideOfKeysSQL = `SELECT msg_key, count(*) FROM amends_outbox_aside WHERE part = ? AND msg_key IN ({in}) GROUP BY msg_key`
	asideTopicsSQL = `SELECT topic, count(*), {now} - min(due_at) FROM amends_outbox_aside
WHERE part = ? AND due_at < {parked} GROUP BY topic`
	asideCountSQL = `SELECT COALESCE(sum(CASE WHEN due_at = {parked} THEN 1 ELSE 0 END), 0),
COALESCE(sum(CASE WHEN due_at < {parked} THEN 1 ELSE 0 END), 0), {now} - min(due_at) FROM amends_outbox_aside`
	asideBlocksSQL = `SELECT count(*) FROM amends_outbox_aside WHERE part = ? AND (poison = 1 OR attempts >= {noted})`

	parkedColumns = `SELECT id, part, msg_id, topic, msg_key, `
	parkedRest    = `, headers, idem_key, created_at, failed_at, attempts, error, length(body)
FROM amends_outbox_aside WHERE due_at = {parked} AND part BETWEEN 0 AND {parts} AND `
	parkedListSQL = parkedColumns + `CASE WHEN ? = 1 THEN {empty} ELSE body END` + parkedRest +
		`id > ? AND (? = '' OR topic = ?) AND (? = {empty} OR msg_key = ?) ORDER BY id LIMIT ?`
	parkedGetSQL  = parkedColumns + `body` + parkedRest + `id = ?`
	parkedPickSQL = `SELECT id FROM amends_outbox_aside WHERE due_at = {parked} AND part BETWEEN 0 AND {parts}
AND (? = '' OR topic = ?) AND (? = {empty} OR msg_key = ?) ORDER BY id LIMIT ?`
	parkedBeforeSQL = `SELECT id FROM amends_outbox_aside
WHERE part = ? AND msg_key = ? AND id < ? AND due_at = {parked} ORDER BY id`
)

// newAsideSQL fills the templates in for one dialect.
func newAsideSQL(now, lock string) asideSQL {
	fill := strings.NewReplacer("{now}", now, "{lock}", lock, "{empty}", "x''", "{parked}", strconv.FormatInt(parked, 10),
		"{noted}", strconv.Itoa(noteAfter), "{parts}", strconv.Itoa(Partitions-1)).Replace
	return asideSQL{
		now: "SELECT " + now, next: fill(asideNextSQL), read: fill(asideReadSQL), keys: asideKeysSQL, last: asideLastSQL,
		add: asideAddSQL, addRow: asideRowSQL, remove: asideRemoveSQL, postpone: asidePostponeSQL,
		postponeOne: asidePostponeOneSQL, failed: fill(asideFailedSQL), tally: newTallySQL("amends_outbox_aside"),
		lock: fill(asideLockSQL), at: asideAtSQL, rows: asideRowsSQL, due: fill(asideDueSQL),
		release: fill(asideReleaseSQL), bury: fill(asideBurySQL), removeIn: asideRemoveInSQL, lockIn: fill(asideLockInSQL),
		waiting: fill(asideWaitingSQL), blocked: fill(asideBlockedSQL), ofKeys: asideOfKeysSQL, topics: fill(asideTopicsSQL),
		count: fill(asideCountSQL), blocks: fill(asideBlocksSQL),
		parkedList: fill(parkedListSQL), parkedGet: fill(parkedGetSQL), parkedPick: fill(parkedPickSQL),
		before: fill(parkedBeforeSQL),
	}
}
