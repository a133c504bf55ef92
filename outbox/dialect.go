package outbox

import (
	"context"
	"database/sql"
	"io/fs"
	"strconv"
	"strings"
)

// Partitions is the number of physical partitions: those that messages are spread
// over by the hash of their key, and behind them one, the express lane, for the
// topics of Config.Express. It belongs to the schema: all writers and relays of a
// database must agree on it, so it is no option.
const Partitions = ordinary + 1

const (
	ordinary = 4        // partitions that are chosen by hash
	express  = ordinary // the one of the express lane
)

// Dialect is how one kind of database is spoken to: a struct of statements.
// Dialects are made by this package (SQLite, MySQL) and are immutable.
type Dialect struct {
	name       string
	migrations fs.FS                // NNNN_name.sql, each statement idempotent
	isolation  sql.IsolationLevel   // of transactions with no statements but these
	retryable  func(err error) bool // nil: never
	part       [Partitions]partitionSQL
	owner      ownerSQL
	dead       deadSQL
	aside      asideSQL
	levels     string // part, lowest and highest id, age of the first row in microseconds: of each table that holds any
	operate    operateSQL
	inbox      InboxSQL
	source     sourceSQL
	migrated   migrationSQL
}

// Name is the dialect's name, for messages and logs: "sqlite" or "mysql".
func (d *Dialect) Name() string { return d.name }

// Retryable tells whether err is the database's answer to a transaction that met
// another one: a deadlock, a lock that it waited for too long. The transaction is
// to be rolled back and may succeed when it is run again from its beginning. A
// lost connection is not among them: what became of a commit under way is unknown.
// On SQLite it is always false: there, transactions wait for each other.
func (d *Dialect) Retryable(err error) bool {
	return err != nil && d.retryable != nil && d.retryable(err)
}

// txOptions are for transactions of which this package has all the statements.
func (d *Dialect) txOptions() *sql.TxOptions { return &sql.TxOptions{Isolation: d.isolation} }

// InboxSQL are the statements of package inbox.
func (d *Dialect) InboxSQL() InboxSQL { return d.inbox }

// InboxSQL are the statements that package inbox runs on amends_inbox.
type InboxSQL struct {
	Claim  string // (key, reply, NULL for none): inserts unless it is there; exactly one row affected means first
	Reply  string // (key): the recorded reply, NULL when none was recorded
	Record string // (reply, key): no row affected means no claim
	Purge  string // (before in microseconds since 1970, limit)

	Isolation sql.IsolationLevel // for Purge
}

// partitionSQL are the statements on one partition's table. Times are
// microseconds since 1970 by the database's clock.
type partitionSQL struct {
	insert  string // followed by one row or several, with commas between them
	row     string // (msg_id, topic, msg_key, body, headers, idem_key)
	read    string // (after id, limit)
	ids     string // (after id, up to id)
	remove  string // (from id, to id)
	count   string
	oldest  string // age of the first row in microseconds
	highest string // id, 0 when there is none
	revive  string // (dead id): copies a dead letter back
	tally   tallySQL
}

// ownerSQL are the statements on the leases of partitions.
type ownerSQL struct {
	peek    string // (partition): owner, epoch, whether it is free
	acquire string // (owner, lease in microseconds, partition, epoch seen)
	renew   string // (lease in microseconds, partition, epoch)
	release string // (partition, epoch)
}

type deadSQL struct {
	add    string // (part, msg_id, topic, msg_key, body, headers, idem_key, created_at, attempts, error)
	list   string // (without bodies, after id, topic, topic, key, key, limit)
	part   string // (id): the partition it came from
	remove string // (id)
	count  string
}

type migrationSQL struct {
	create string
	has    string // (component, version)
	add    string // (component, version)
}

const highestSQL = `SELECT COALESCE(MAX(id), 0) FROM amends_outbox_{p}`

func forPartition(sql string, p int) string { return strings.ReplaceAll(sql, "{p}", strconv.Itoa(p)) }

// forPartitions fills a template's {p} in with each partition's number. Only
// the numbers below Partitions ever get there: values are always bound.
func forPartitions(t partitionSQL) [Partitions]partitionSQL {
	var out [Partitions]partitionSQL
	for p := range out {
		in := func(s string) string { return forPartition(s, p) }
		out[p] = partitionSQL{
			insert: in(t.insert), row: t.row, read: in(t.read), ids: in(t.ids),
			remove: in(t.remove), count: in(t.count), oldest: in(t.oldest), highest: in(highestSQL), revive: in(t.revive),
			tally: newTallySQL("amends_outbox_" + strconv.Itoa(p)),
		}
	}
	return out
}

// querier is what *sql.DB, *sql.Conn and *sql.Tx have in common.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// execCount runs a statement and answers how many rows it affected.
func execCount(ctx context.Context, q querier, query string, args ...any) (int64, error) {
	res, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
