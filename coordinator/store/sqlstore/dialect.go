package sqlstore

import (
	"context"
	"io/fs"
)

// dialect is what one database needs said its own way. The rest of the package
// says the same to all of them: "?" for parameters, all values bound.
type dialect struct {
	name       string
	migrations fs.FS // NNNN_name.sql in order, statements ended by ";" at the end of a line

	// now is the database's clock, in microseconds since 1970.
	now string
	// lock ends a SELECT whose rows must not change before the transaction ends.
	lock string
	// lockFree is lock, but passes over rows that another transaction holds.
	lockFree string
	// keepNewer ends the multi-row insert of transactions: where the gid is
	// taken, the columns that change are replaced if the version is higher.
	keepNewer string
	// insertNew and elseIgnore surround an insert that ignores rows it has.
	insertNew, elseIgnore string
	// pairs wraps a list of (a, b) rows for use behind IN.
	pairs string
	// rowCounts are the sizes, descending to 1, of multi-row statements that
	// are prepared once; larger batches are cut into them. Empty: statements
	// are not prepared and are as large as maxVars allows.
	rowCounts []int
	// maxVars is the largest number of parameters of a statement.
	maxVars int
	// exclusive: only this process has the database open.
	exclusive bool
	// inTx makes the context of a database transaction that has begun.
	inTx func(context.Context) context.Context
	// explain turns driver errors that a person can act on into such words.
	explain func(error) error
}

// Columns in the order of scanRecord and bindRecord.
const (
	listColumns = `t.gid, t.shard, t.kind, t.name, t.state, t.paused, t.version, t.reason,
 t.created_at, t.updated_at, t.deadline, t.next_at, t.finished_at, t.event_seq, t.event_hash, t.digest, t.labels`
	allColumns = listColumns + `, t.body, t.definition`

	insertTransactions = `INSERT INTO amends_transactions (gid, shard, kind, name, state, paused, version, reason,
 created_at, updated_at, deadline, next_at, finished_at, event_seq, event_hash, digest, labels, body, definition) VALUES `
	transactionVars = 19

	eventsTable = ` INTO amends_events (gid, seq, at, type, data, prev, hash) VALUES `
	eventVars   = 7

	labelsTable = ` INTO amends_labels (name, value, created_at, gid) VALUES `
	labelVars   = 4
)
