package sdk

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/saga/txn"
)

// guard makes each operation take effect once. It remembers by claims in the
// handler's own transaction:
//
//   - "gid branch do" (or try): that the first phase ran, with its reply, or
//     that it never will: then the claim is a tombstone, laid by an undo or
//     cancel that came first.
//   - "gid branch end": that the second phase ran, with the name of the
//     operation. One key for confirm and cancel, so that never both run.
//
// Before them stands the participant's namespace where it has one, because a gid
// means something within a namespace only.
//
// A claim is always inserted before anything is decided. Whoever comes second
// waits for the first or fails, and then finds what it left.
type guard struct {
	db      *sql.DB
	dialect *outbox.Dialect
	outbox  *outbox.Outbox // may be nil
	turn    chan struct{}  // for databases with one writer: who holds it runs a transaction; nil: any number
}

func newGuard(db *sql.DB, dialect *outbox.Dialect, box *outbox.Outbox) guard {
	g := guard{db: db, dialect: dialect, outbox: box}
	if dialect == outbox.SQLite { // a queue here is quicker and fairer than its busy handler
		g.turn = make(chan struct{}, 1)
	}
	return g
}

// What the record of a first-phase claim begins with.
const (
	markDone      = 'd' // the reply follows
	markTombstone = 't'
)

const endKey = "end"

var (
	errEnded = errors.New("the handler committed or rolled back the transaction itself: leave its end to the sdk")
	errClaim = errors.New("the guard's claim holds no record: a handler committed the transaction itself, or the row was changed")
)

// lockTries is how often a call is performed before the coordinator hears that
// the database rolled it back for another transaction's sake, which would count
// as an attempt of its step.
const lockTries = 5

// perform runs one call in one transaction, again where that met another one:
// what is run twice finds its claim if it was committed after all. The reply may
// come with an error: the recorded reply of a do that cannot be undone.
func (g *guard) perform(ctx context.Context, c *call, a *action) ([]byte, error) {
	for tries := 1; ; tries++ {
		reply, err := g.try(ctx, c, a)
		var refused *RefusedError
		if !g.dialect.Retryable(err) || errors.As(err, &refused) || tries == lockTries || ctx.Err() != nil {
			return reply, err
		}
	}
}

func (g *guard) try(ctx context.Context, c *call, a *action) ([]byte, error) {
	return g.inTx(ctx, func(tx *sql.Tx) ([]byte, error) {
		switch c.info.Op {
		case txn.Do, txn.Try:
			return g.first(ctx, tx, c, a)
		case txn.Undo:
			return g.second(ctx, tx, c, a, txn.Do)
		case txn.Confirm, txn.Cancel:
			return g.second(ctx, tx, c, a, txn.Try)
		}
		return nil, fmt.Errorf("%s is no operation that this version knows", c.info.Op)
	})
}

// first performs a do or try, or finds that it did, or that it must not.
func (g *guard) first(ctx context.Context, tx *sql.Tx, c *call, a *action) ([]byte, error) {
	key := c.info.key(c.info.Op.String())
	claim, err := inbox.Claim(ctx, tx, g.dialect, key)
	if err != nil {
		return nil, err
	}
	if !claim.First {
		return replay(claim.Reply, c.info.Op)
	}
	run, ok := a.ops[c.info.Op]
	if !ok {
		return nil, Refuse(fmt.Errorf("%q is registered with %s and does not handle %s", a.name, a.with, c.info.Op))
	}
	reply, err := run(ctx, tx, c.payload, nil)
	if failed := c.failed(); failed != nil { // also where the handler refused because of it
		err = failed
	}
	if err != nil {
		return nil, err
	}
	return reply, g.record(ctx, tx, key, append([]byte{markDone}, reply...))
}

// replay answers a do or try that was delivered before.
func replay(record []byte, op txn.Op) ([]byte, error) {
	switch reply, mark := split(record); mark {
	case markDone:
		return reply, nil
	case markTombstone:
		if op == txn.Try {
			return nil, Refuse(errors.New("cancelled before it arrived"))
		}
		return nil, Refuse(errors.New("undone before it arrived"))
	}
	return nil, errClaim
}

func split(record []byte) (reply []byte, mark byte) {
	if len(record) == 0 {
		return nil, 0
	}
	return record[1:], record[0]
}

// second performs an undo, confirm or cancel of the first-phase operation of.
// What it refuses, only a person can decide.
func (g *guard) second(ctx context.Context, tx *sql.Tx, c *call, a *action, of txn.Op) ([]byte, error) {
	op := c.info.Op
	first := c.info.key(of.String())
	claim, err := inbox.Claim(ctx, tx, g.dialect, first)
	if err != nil {
		return nil, err
	}
	did, mark := split(claim.Reply)
	switch {
	case claim.First && op == txn.Confirm:
		return nil, Refuse(errors.New("confirm of a branch whose try is not on record here"))
	case claim.First:
		return nil, g.record(ctx, tx, first, []byte{markTombstone})
	case mark == markTombstone && op == txn.Confirm:
		return nil, Refuse(errors.New("confirm of a branch that was cancelled before its try arrived"))
	case mark == markTombstone:
		return nil, nil
	case mark != markDone:
		return nil, Refuse(errClaim)
	}
	return g.finish(ctx, tx, c, a, did)
}

// finish runs the second phase of a first phase that took effect, once.
func (g *guard) finish(ctx context.Context, tx *sql.Tx, c *call, a *action, did []byte) ([]byte, error) {
	op := c.info.Op
	key := c.info.key(endKey)
	claim, err := inbox.Claim(ctx, tx, g.dialect, key)
	switch {
	case err != nil:
		return nil, err
	case !claim.First && string(claim.Reply) == op.String():
		return nil, nil
	case !claim.First && len(claim.Reply) == 0:
		return did, Refuse(errClaim)
	case !claim.First:
		return did, Refuse(fmt.Errorf("%s came after %s", op, claim.Reply))
	}
	run, ok := a.ops[op]
	switch {
	case !ok && op == txn.Undo && a.ops[txn.Do] != nil:
		return did, Refuse(fmt.Errorf("%q has no undo, and it took effect", a.name))
	case !ok:
		return nil, fmt.Errorf("%q is registered with %s and does not handle %s", a.name, a.with, op)
	}
	_, err = run(ctx, tx, c.payload, did)
	if failed := c.failed(); failed != nil {
		err = failed
	}
	if err != nil {
		return did, err
	}
	return nil, g.record(ctx, tx, key, []byte(op.String()))
}

// record keeps what a claim is for. It is the first statement after the
// handler, so it notices one that ended the transaction.
func (g *guard) record(ctx context.Context, tx *sql.Tx, key string, body []byte) error {
	err := inbox.Record(ctx, tx, g.dialect, key, body)
	if ctx.Err() == nil && (errors.Is(err, sql.ErrTxDone) || errors.Is(err, inbox.ErrNotClaimed)) {
		return fmt.Errorf("%w (%w)", errEnded, err)
	}
	return err
}

// inTx runs fn in a transaction, commits if it returns nil and rolls back on
// every other way out, a panic included. A refusal whose rollback failed is no
// refusal: nobody knows what stands.
func (g *guard) inTx(ctx context.Context, fn func(*sql.Tx) ([]byte, error)) (reply []byte, err error) {
	release, err := g.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := g.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	defer func() {
		if cerr := conn.Close(); cerr != nil && !errors.Is(cerr, sql.ErrConnDone) { // done: it was discarded
			err = errors.Join(err, cerr)
		}
	}()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	committing := false
	defer func() {
		if committing {
			return
		}
		if rerr := tx.Rollback(); rerr != nil {
			if !errors.Is(rerr, sql.ErrTxDone) {
				cleanSession(ctx, conn)
			}
			reply, err = nil, notRolledBack(ctx, err, rerr)
		}
	}()
	reply, err = fn(tx)
	if err != nil {
		return reply, err
	}
	committing = true
	if err := tx.Commit(); err != nil {
		cleanSession(ctx, conn)
		return nil, fmt.Errorf("commit: %w", err)
	}
	if g.outbox != nil {
		g.outbox.Wake()
	}
	return reply, nil
}

// takeTurn waits, where the database has one writer, until that is the caller,
// and returns what ends its turn.
func (g *guard) takeTurn(ctx context.Context) (release func(), err error) {
	if g.turn == nil {
		return func() {}, nil
	}
	select {
	case g.turn <- struct{}{}:
		return func() { <-g.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the database's only writer: %w", ctx.Err())
	}
}

// notRolledBack says what a failed rollback makes of the error before it. That
// one is quoted, not wrapped: it may be a refusal.
func notRolledBack(ctx context.Context, err, rollback error) error {
	if errors.Is(rollback, sql.ErrTxDone) {
		if ctx.Err() != nil { // database/sql rolled back when ctx ended
			return fmt.Errorf("%w (the handler said: %v)", context.Cause(ctx), err)
		}
		if errors.Is(err, errEnded) {
			return err
		}
		rollback = errEnded
	}
	return fmt.Errorf("roll back: %w (the handler said: %v)", rollback, err)
}

// cleanSession ends a transaction that a failed commit or rollback may have left open on
// the connection, which database/sql does not, and discards the connection if
// that fails: its next user would work inside that transaction.
func cleanSession(ctx context.Context, conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		// The error is the one asked for.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
}
