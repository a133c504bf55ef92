package outbox

import "strings"

// operateSQL are the statements of Operator and of what relays tell it. In the
// templates, {p} is a partition's number, {now} the database's clock, {lock}
// what locks the rows that a SELECT found, and {in} a list of parameters.
type operateSQL struct {
	part [Partitions]operatePartSQL

	deadGet, deadPick, deadLock, deadRemove string

	actBegin, actEnd, actGet, actList string

	owners      string // part, owner, epoch, what is left of the lease in microseconds
	noted       string // (part): rows of its notes; lock may follow
	lock        string // locks what a SELECT found
	noteClear   string // (part)
	noteAdd     string // followed by one noteRow or several, with commas between them
	noteRow     string // (a note, its age and the time to the next attempt in microseconds)
	noteLift    string // (part, row)
	noteLiftKey string // (part, key)

	identityAdd, identityGet string
}

type operatePartSQL struct {
	topics  string // topic, rows, age of the oldest in microseconds
	waiting string // (after id, topic, topic, key, key, limit): without bodies
	keyAt   string // (id): the key of a row
	ofKey   string // (key): ids in order
	lock    string // (ids): id, msg_id of those that are there, locked
	bury    string // (error, ids): copies into the dead letters; what relays noted counts more
	remove  string // (ids)
	blocked string // (after row_id, limit): what was noted of rows that are there
	ofKeys  string // (keys): key, rows
}

const (
	topicsSQL  = `SELECT topic, count(*), {now} - min(created_at) FROM amends_outbox_{p} GROUP BY topic`
	waitingSQL = `SELECT id, msg_id, topic, msg_key, length(body), idem_key, created_at
FROM amends_outbox_{p} WHERE id > ? AND (? = '' OR topic = ?) AND (? = x'' OR msg_key = ?) ORDER BY id LIMIT ?`
	keyAtSQL  = `SELECT msg_key FROM amends_outbox_{p} WHERE id = ?`
	ofKeySQL  = `SELECT id FROM amends_outbox_{p} WHERE msg_key = ? ORDER BY id`
	lockSQL   = `SELECT id, msg_id FROM amends_outbox_{p} WHERE id IN ({in}) ORDER BY id{lock}`
	buryInSQL = `INSERT INTO amends_outbox_dead
(part, msg_id, topic, msg_key, body, headers, idem_key, created_at, failed_at, attempts, error)
SELECT {p}, msg_id, topic, msg_key, body, headers, idem_key, created_at, {now},
COALESCE((SELECT b.attempts FROM amends_outbox_blocked b WHERE b.part = {p} AND b.row_id = m.id), 0),
COALESCE((SELECT b.error FROM amends_outbox_blocked b WHERE b.part = {p} AND b.row_id = m.id), ?)
FROM amends_outbox_{p} m WHERE m.id IN ({in}) ORDER BY m.id`
	removeInSQL = `DELETE FROM amends_outbox_{p} WHERE id IN ({in})`
	blockedSQL  = `SELECT b.row_id, b.msg_id, b.topic, b.msg_key, b.attempts, b.poison, b.error, b.blocked_at, b.retry_at
FROM amends_outbox_blocked b JOIN amends_outbox_{p} m ON m.id = b.row_id
WHERE b.part = {p} AND b.row_id > ? ORDER BY b.row_id LIMIT ?`
	ofKeysSQL = `SELECT msg_key, count(*) FROM amends_outbox_{p} WHERE msg_key IN ({in}) GROUP BY msg_key`

	deadGetSQL = `SELECT id, part, msg_id, topic, msg_key, body, headers, idem_key, created_at, failed_at,
attempts, error, length(body) FROM amends_outbox_dead WHERE id = ?`
	deadPickSQL = `SELECT id FROM amends_outbox_dead
WHERE (? = '' OR topic = ?) AND (? = x'' OR msg_key = ?) ORDER BY id LIMIT ?`
	deadLockSQL     = `SELECT id, part, msg_id FROM amends_outbox_dead WHERE id IN ({in}) ORDER BY id{lock}`
	deadRemoveInSQL = `DELETE FROM amends_outbox_dead WHERE id IN ({in})`

	// One row affected is a new one, as in the inbox.
	actBeginSQL = `INSERT INTO amends_outbox_acts
(request_id, verb, target, actor, reason, messages, message_ids, more, acted_at, touched)
VALUES (?, ?, ?, ?, ?, 0, x'', 0, {now}, 0) {once}`
	actEndSQL = `UPDATE amends_outbox_acts SET messages = ?, message_ids = ?, more = ?, touched = touched + 1
WHERE request_id = ?`
	actColumns = `SELECT id, request_id, verb, target, actor, reason, messages, message_ids, more, acted_at
FROM amends_outbox_acts `
	actGetSQL  = actColumns + `WHERE request_id = ?`
	actListSQL = actColumns + `WHERE ? = 0 OR id < ? ORDER BY id DESC LIMIT ?`

	ownersSQL      = `SELECT part, owner, epoch, expires_at - {now} FROM amends_outbox_owner ORDER BY part`
	notedSQL       = `SELECT row_id FROM amends_outbox_blocked WHERE part = ?`
	noteClearSQL   = `DELETE FROM amends_outbox_blocked WHERE part = ?`
	noteLiftSQL    = `DELETE FROM amends_outbox_blocked WHERE part = ? AND row_id = ?`
	noteLiftKeySQL = `DELETE FROM amends_outbox_blocked WHERE part = ? AND msg_key = ?`
	noteAddSQL     = `INSERT INTO amends_outbox_blocked
(part, row_id, msg_id, topic, msg_key, attempts, poison, error, blocked_at, retry_at) VALUES `
	noteRowSQL = `(?, ?, ?, ?, ?, ?, ?, ?, {now} - ?, {now} + ?)`

	identityAddSQL = `INSERT INTO amends_outbox_identity (only_row, value) VALUES (1, ?)`
	identityGetSQL = `SELECT value FROM amends_outbox_identity`
)

// newOperateSQL fills the templates in for one dialect. once ends an INSERT
// such that it affects exactly one row only when it made one.
func newOperateSQL(now, lock, once string) operateSQL {
	fill := strings.NewReplacer("{now}", now, "{lock}", lock, "{once}", once).Replace
	s := operateSQL{
		deadGet: deadGetSQL, deadPick: deadPickSQL, deadLock: fill(deadLockSQL), deadRemove: deadRemoveInSQL,
		actBegin: fill(actBeginSQL), actEnd: actEndSQL, actGet: actGetSQL, actList: actListSQL,
		owners: fill(ownersSQL), noted: notedSQL, lock: lock, noteClear: noteClearSQL, noteAdd: noteAddSQL, noteRow: fill(noteRowSQL),
		noteLift: noteLiftSQL, noteLiftKey: noteLiftKeySQL, identityAdd: identityAddSQL, identityGet: identityGetSQL,
	}
	for p := range s.part {
		in := func(sql string) string { return forPartition(fill(sql), p) }
		s.part[p] = operatePartSQL{
			topics: in(topicsSQL), waiting: in(waitingSQL), keyAt: in(keyAtSQL), ofKey: in(ofKeySQL), lock: in(lockSQL),
			bury: in(buryInSQL), remove: in(removeInSQL), blocked: in(blockedSQL), ofKeys: in(ofKeysSQL),
		}
	}
	return s
}

// withIn writes n parameters where a statement says {in}.
func withIn(sql string, n int) string {
	return strings.Replace(sql, "{in}", strings.Repeat("?, ", n-1)+"?", 1)
}

// idArgs are parameters: what comes first, and then ids.
func idArgs(ids []int64, first ...any) []any {
	args := append(make([]any, 0, len(first)+len(ids)), first...)
	for _, id := range ids {
		args = append(args, id)
	}
	return args
}
