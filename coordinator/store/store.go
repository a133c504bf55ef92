// Package store says what the coordinator needs of a database. Implementations
// are memstore (tests) and sqlstore (SQLite embedded; MySQL); storetest is the
// suite that each of them passes.
//
// A store keeps one row per transaction, one appended row per audit event, and
// one lease row per shard. What a transaction means is opaque to it.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that implementations return; test with errors.Is.
var (
	// ErrNotFound says that there is no such transaction. It never means that
	// one was rolled back.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict says that a lease in the batch is no longer held: another
	// coordinator owns the shard. Nothing of the batch was written.
	ErrConflict = errors.New("store: shard is owned by another coordinator")
	// ErrInUse says that another process has the store open and it admits one.
	ErrInUse = errors.New("store: in use by another process")
	// ErrNoOutbox says that a batch has messages and the store has no outbox to
	// write them to. Nothing of the batch was written.
	ErrNoOutbox = errors.New("store: a batch has messages and the store no outbox")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store: closed")
)

// ConflictError is the ErrConflict that names the shards that were lost.
type ConflictError struct {
	Shards []int
}

// Error names the shards.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: shards %v", ErrConflict, e.Shards)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Lease is the right to write a shard's transactions: as long as the shard's
// epoch in the database is this one, nobody else has written them.
type Lease struct {
	Shard int
	Epoch int64
}

// Holding is a shard's lease as others see it.
type Holding struct {
	Lease
	Owner     string    // empty: nobody
	ExpiresAt time.Time // by the store's clock; zero: nobody holds it
}

// Record is one transaction as the database keeps it.
//
// Times are kept in microseconds (what is finer is cut off) and come back in
// UTC; the zero time comes back as the zero time. An empty byte slice or map
// comes back as nil. Fields marked "fixed" are written with version 1 and
// ignored in later writes.
type Record struct {
	GID        string            // 1 to MaxGID bytes, compared byte by byte
	Shard      int               // fixed
	Namespace  string            // fixed; whose it is, at most MaxNamespace bytes; searchable
	Kind       string            // fixed; "saga" or "tcc"
	Name       string            // fixed; the definition's
	State      uint8             // opaque number, searchable
	Paused     bool              // opaque flag, searchable
	Stalled    bool              // opaque flag, searchable: it waits for longer than it should
	WaitsFor   string            // the service that it is stalled or parked for, at most MaxWaitsFor bytes; searchable
	Version    int64             // 1 at creation, one more with each write
	Definition []byte            // fixed
	Body       []byte            // the machine's state and the engine's own
	Digest     []byte            // fixed; of the start request: tells a repeated start from another
	Labels     map[string]string // fixed; searchable; valid UTF-8
	Reason     string            // why it turned back or is parked, for lists
	CreatedAt  time.Time         // fixed
	UpdatedAt  time.Time         // of this version
	Deadline   time.Time         // zero: none
	NextAt     time.Time         // when it is due; zero: nothing to do (finished or parked)
	FinishedAt time.Time         // zero: not finished
	EventSeq   int64             // number of its last audit event, 0: none
	EventHash  []byte            // digest of its last audit event
}

// Event is one audit event. The store appends it and never changes it.
type Event struct {
	GID  string
	Seq  int64 // 1, 2, 3 … within the transaction
	At   time.Time
	Type string // a word from a fixed set
	Data []byte // JSON, part of what Hash covers
	Prev []byte // Hash of the event before it, empty for the first
	Hash []byte
}

// Write is one transition: the transaction's new row, the events that go with
// it, numbered on from those of the versions before, and the messages that are to
// leave with it.
type Write struct {
	Record   Record
	Events   []Event
	Messages []Message
}

// Message is what a transition tells the world outside. It goes into the
// store's outbox in the same database transaction, so that it leaves if and
// only if the transition took effect. A batch that is repeated may write it
// again, with the same ID. A store without an outbox refuses it: ErrNoOutbox.
type Message struct {
	ID      string // the same when it comes again
	Topic   string
	Key     string // messages of one key leave in the order of their commits
	Headers map[string]string
	Body    []byte
}

// Batch is what is committed together or not at all. Validate says what makes
// one legal.
type Batch struct {
	Leases []Lease // every shard written, each once
	Writes []Write // at most one per transaction
}

// Query selects transactions. Zero values select all.
//
// A query is led by the index of the first of these that it names, and looks
// at nothing else: WaitsFor, Stalled being true, a label, Unfinished, Namespace.
// What else it names filters what that index meets; so Namespace with
// Unfinished looks at all that is unfinished. A list comes from any of these,
// or from the order of creation, without sorting, and so reads little more
// than its page.
//
// A Count looks at all that its index meets. With Namespace alone, or with
// nothing, that is an index entry for each transaction of the store's history
// (and a row, if more than States is asked about them): bound it by
// CreatedFrom, which reads only what was created since, or don't ask often.
type Query struct {
	Namespace    *string // nil: all of them
	States       []uint8
	Kind         string
	Name         string
	Paused       *bool
	Stalled      *bool
	WaitsFor     string            // this service; empty: whatever they wait for
	Unfinished   bool              // only those without FinishedAt
	CreatedFrom  time.Time         // inclusive
	CreatedUntil time.Time         // exclusive
	UpdatedUntil time.Time         // exclusive; finds what has not moved
	Labels       map[string]string // all of these
	OldestFirst  bool              // turns a list's order round; it takes no cursor then
}

// Cursor is a place in a list, just after the transaction it names. The order
// is newest first: CreatedAt descending, then GID ascending by bytes. Writes
// between two pages neither repeat nor skip a transaction that existed before
// the first page and still matches.
type Cursor struct {
	CreatedAt time.Time
	GID       string
}

// Store is a database of transactions. All methods are safe for concurrent
// use. Times are the database's own clock where a lease is concerned.
type Store interface {
	Cluster

	// Shards returns the number of shards, fixed when the store was created.
	Shards(ctx context.Context) (int, error)

	// Commit writes a batch durably, after checking every lease's epoch in the
	// same database transaction; a stale one is a *ConflictError and writes
	// nothing. It is idempotent: a batch repeated after it took effect (its
	// reply was lost) returns nil and changes nothing, and a delayed repeat
	// never overwrites a later version. Versions may be skipped upwards (one
	// write covers several transitions), but the first one written is 1.
	//
	// After any other error it is not known whether the batch took effect, nor
	// whether it will: repeat it, or read back behind a fence. The fence is any
	// later Commit under the same lease that succeeds, be it of no writes: what
	// failed before it has taken effect by then or never will.
	Commit(ctx context.Context, b Batch) error

	// Load returns one transaction, or ErrNotFound.
	Load(ctx context.Context, gid string) (Record, error)
	// Due returns transactions of the given shards whose NextAt is set and in
	// [From, Until), whole, ordered by shard, then NextAt, then GID, starting
	// after the transaction (AfterShard, AfterNext, AfterGID) when AfterGID is
	// not empty. It looks at what is due in these shards and at nothing else. A
	// write between two pages moves a transaction, so that it may be met twice
	// or be met only by the next round; it is never lost for both.
	Due(ctx context.Context, q DueQuery) ([]Record, error)

	// List returns up to limit transactions after the cursor (nil: from the
	// newest), without Definition and Body. A limit below 1 returns none,
	// here and wherever there is a limit.
	List(ctx context.Context, q Query, after *Cursor, limit int) ([]Record, error)
	// Count returns how many transactions match, by state.
	Count(ctx context.Context, q Query) (map[uint8]int64, error)
	// Events returns up to limit audit events of a transaction with Seq
	// greater than after, in order.
	Events(ctx context.Context, gid string, after int64, limit int) ([]Event, error)

	// Purge deletes up to limit transactions that finished before the given
	// time, the oldest first (those of one time in the order of lists), with
	// their labels and events, and returns how many. Unfinished transactions are
	// never deleted, whatever their age. After an error some may be gone, each of
	// them whole.
	Purge(ctx context.Context, before time.Time, limit int) (int, error)

	// Close waits for the calls under way and releases what the store holds.
	// Later calls return ErrClosed. Leases stay until they expire, unless the
	// store admits one process at a time (SQLite): then opening ends them.
	// Closing twice is harmless.
	Close() error
}

// DueQuery is the argument of Store.Due.
type DueQuery struct {
	Shards     []int     // each once, in any order
	From       time.Time // inclusive; zero: no lower bound
	Until      time.Time // exclusive
	AfterShard int       // with AfterGID: continue behind this transaction
	AfterNext  time.Time
	AfterGID   string
	Limit      int
}
