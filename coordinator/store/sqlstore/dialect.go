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
	// keepNewer ends the multi-row insert of transactions: where the gid is
	// taken, the columns that change are replaced if the version is higher,
	// and the trail is added to.
	keepNewer string
	// elseKeep ends an insert that leaves rows alone that are there; it is
	// given a column of the table.
	elseKeep func(column string) string
	// keepMember ends the insert of a member: where the name is taken, all else
	// is replaced.
	keepMember string
	// use names the index that serves a query, behind the table's alias.
	use func(index string) string
	// join joins two tables, the first of which is read first.
	join string
	// deleteFrom begins a DELETE that finds its rows by the index.
	deleteFrom func(table, index string) string
	// newest is the column whose index gives lists their order, the newest
	// first. It holds the time of creation and is read downwards or, if
	// negated, holds it with the sign turned and is read upwards.
	newest  string
	negated bool
	// ended is the index of what is finished, by when.
	ended string

	// rowCounts are the sizes, descending to 1, of multi-row statements that
	// are prepared once; batches are cut into them.
	rowCounts []int
	// fillUp: a statement is worth sending a few rows twice, which changes
	// nothing, if that saves further statements.
	fillUp bool
	// maxVars is the largest number of parameters of a statement.
	maxVars int
	// maxLeases is the largest number of leases that one statement checks, if
	// the database has to be asked.
	maxLeases int
	// maxBytes bounds the text of a statement of several rows, 0: no bound.
	maxBytes int
	// atOnce: a transaction is committed by one statement where that can be.
	atOnce bool
	// exclusive: only this process has the database open.
	exclusive bool
	// inTx makes the context of a database transaction that has begun.
	inTx func(context.Context) context.Context
	// again says whether what failed with this error is worth repeating: it
	// was rolled back for no fault of its own, or nobody knows what became of it.
	again func(error) bool
	// done says whether a statement of a migration failed with this error
	// because it was executed before.
	done func(error) bool
	// explain turns driver errors that a person can act on into such words.
	explain func(error) error
}

// Columns in the order of scanRecord and bindRecord.
const (
	listColumns = `t.gid, t.shard, t.namespace, t.kind, t.name, t.state, t.paused, t.stalled, t.waits_for,
 t.version, t.reason, t.created_at, t.updated_at, t.deadline, t.next_at, t.finished_at,
 t.event_seq, t.event_hash, t.digest, t.labels`
	allColumns = listColumns + `, t.body, t.definition`

	intoTransactions = `INSERT INTO amends_transactions (gid, shard, namespace, kind, name, state,
 paused, stalled, waits_for, version, reason, created_at, updated_at, deadline, next_at, finished_at,
 event_seq, event_hash, digest, labels, body, definition, trail) `
	insertTransactions = intoTransactions + `VALUES `
	transactionVars    = 23

	insertEvents = `INSERT INTO amends_events (gid, seq, at, type, data, prev, hash) VALUES `
	eventVars    = 7

	insertLabels = `INSERT INTO amends_labels (name, value, %s, gid) VALUES ` // the dialect's newest
	labelVars    = 4
)

// Indexes by what they serve, for dialect.use.
const (
	primaryKey     = `PRIMARY`
	dueIndex       = `amends_due_by_shard`
	createdIndex   = `amends_created`
	namespaceIndex = `amends_namespace`
	liveIndex      = `amends_live`
	stalledIndex   = `amends_stalled`
	waitsForIndex  = `amends_waits_for`
	endedIndex     = `amends_ended`    // where liveIndex has only what is live
	labelsIndex    = `the first label` // of another table, which then leads
	labelsByGID    = `amends_labels_gid`
)
