package sdk

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

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
// waits for the first or fails, and then finds what it left. Only a first phase
// that is seen to be on record is not claimed again by the second.
//
// Where each statement is a round trip, a claim is inserted with the record that
// most handlers lead to, and changed only where the handler's is another one.
type guard struct {
	db      *sql.DB
	dialect *outbox.Dialect
	outbox  *outbox.Outbox // may be nil
	turn    chan struct{}  // for databases with one writer: who holds it runs a transaction; nil: any number
	witness *witness       // nil where turn is not: a record is always written behind the handler
}

func newGuard(db *sql.DB, dialect *outbox.Dialect, box *outbox.Outbox) guard {
	g := guard{db: db, dialect: dialect, outbox: box}
	if dialect == outbox.SQLite { // a queue here is quicker and fairer than its busy handler
		g.turn = make(chan struct{}, 1)
		return g
	}
	g.witness = &witness{db: db}
	return g
}

// What the record of a first-phase claim begins with.
const (
	markDone      = 'd' // the reply follows
	markTombstone = 't'
)

const endKey = "end"

var (
	errEnded = errors.New("the handler committed or rolled back the transaction itself, or passed over an error with which " +
		"the database rolled it back: leave its end to the sdk, and return the errors of tx")
	errMet   = errors.New("the first phase came while the second looked for it")
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
		again := g.dialect.Retryable(err) || errors.Is(err, errMet)
		if !again || errors.As(err, &refused) || tries == lockTries || ctx.Err() != nil {
			return reply, err
		}
	}
}

func (g *guard) try(ctx context.Context, c *call, a *action) ([]byte, error) {
	var p promise
	reply, err := g.inTx(ctx, &p, func(tx *sql.Tx) ([]byte, error) {
		switch c.info.Op {
		case txn.Do, txn.Try:
			return g.first(ctx, tx, c, a, &p)
		case txn.Undo:
			return g.second(ctx, tx, c, a, &p, txn.Do)
		case txn.Confirm, txn.Cancel:
			return g.second(ctx, tx, c, a, &p, txn.Try)
		}
		return nil, fmt.Errorf("%s is no operation that this version knows", c.info.Op)
	})
	if err == nil && p.kept {
		err = g.witness.stands(ctx, p.key)
	}
	return reply, err
}

// first performs a do or try, or finds that it did, or that it must not.
func (g *guard) first(ctx context.Context, tx *sql.Tx, c *call, a *action, p *promise) ([]byte, error) {
	claim, err := g.claim(ctx, tx, p, c.info.key(c.info.Op.String()), a.usual)
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
	return reply, g.record(ctx, tx, p, append([]byte{markDone}, reply...))
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
func (g *guard) second(ctx context.Context, tx *sql.Tx, c *call, a *action, p *promise, of txn.Op) ([]byte, error) {
	op := c.info.Op
	claim, err := g.find(ctx, tx, c.info.key(of.String()))
	if err != nil {
		return nil, err
	}
	did, mark := split(claim.Reply)
	switch {
	case claim.First && op == txn.Confirm:
		return nil, Refuse(errors.New("confirm of a branch whose try is not on record here"))
	case claim.First: // with a tombstone
		return nil, nil
	case mark == markTombstone && op == txn.Confirm:
		return nil, Refuse(errors.New("confirm of a branch that was cancelled before its try arrived"))
	case mark == markTombstone:
		return nil, nil
	case mark != markDone:
		return nil, Refuse(errClaim)
	}
	return g.finish(ctx, tx, c, a, p, did)
}

// find returns the claim of a first phase, or lays a tombstone in its place.
func (g *guard) find(ctx context.Context, tx *sql.Tx, key string) (inbox.Claimed, error) {
	looks := g.turn == nil // a transaction that will write begins with that where there is one writer
	if looks {
		record, found, err := inbox.Recorded(ctx, tx, g.dialect, key)
		if err != nil || found {
			return inbox.Claimed{Reply: record}, err
		}
	}
	claim, err := inbox.ClaimWith(ctx, tx, g.dialect, key, []byte{markTombstone})
	if err == nil && looks && !claim.First { // the handler must not see the database as it was before
		err = errMet
	}
	return claim, err
}

// finish runs the second phase of a first phase that took effect, once.
func (g *guard) finish(ctx context.Context, tx *sql.Tx, c *call, a *action, p *promise, did []byte) ([]byte, error) {
	op := c.info.Op
	claim, err := g.claim(ctx, tx, p, c.info.key(endKey), []byte(op.String()))
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
	return nil, g.record(ctx, tx, p, []byte(op.String()))
}

// promise is a claim that a transaction has made, for its handler.
type promise struct {
	key    string
	record []byte // with which it was inserted; nil: none
	kept   bool   // that is what the handler led to
}

// claim claims for a handler that usually leads to a record; nil: who knows.
func (g *guard) claim(ctx context.Context, tx *sql.Tx, p *promise, key string, usual []byte) (claim inbox.Claimed, err error) {
	*p = promise{key: key}
	if g.witness == nil || usual == nil {
		return inbox.Claim(ctx, tx, g.dialect, key)
	}
	if claim, err = inbox.ClaimWith(ctx, tx, g.dialect, key, usual); claim.First {
		p.record = usual
	}
	return claim, err
}

// record keeps what a claim is for. It is the first statement after the
// handler, so it notices where the transaction has ended; the witness does,
// where the claim holds the record already.
func (g *guard) record(ctx context.Context, tx *sql.Tx, p *promise, body []byte) error {
	if p.record != nil && bytes.Equal(p.record, body) {
		p.kept = true
		return nil
	}
	err := inbox.Record(ctx, tx, g.dialect, p.key, body)
	if ctx.Err() == nil && (errors.Is(err, sql.ErrTxDone) || errors.Is(err, inbox.ErrNotClaimed)) {
		return fmt.Errorf("%w (%w)", errEnded, err)
	}
	return err
}
