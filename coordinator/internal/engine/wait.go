package engine

import (
	"context"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// waitPoll is how often a waiter asks again, in case the transition that it
// waits for happened elsewhere.
const waitPoll = 2 * time.Second

// Get returns a transaction as the store has it.
func (e *Engine) Get(ctx context.Context, gid string) (store.Record, error) {
	rec, err := e.store.Load(ctx, gid)
	switch {
	case err == nil:
		return rec, nil
	case errors.Is(err, store.ErrNotFound):
		return rec, notFound(gid)
	}
	return rec, unavailable(err)
}

// Wait returns a transaction once it has finished or is parked, or the
// context's error. When the transaction's shard leaves this engine, it is
// ErrNotOwner: another one knows sooner.
func (e *Engine) Wait(ctx context.Context, gid string) (store.Record, error) {
	changed, done := e.watch.subscribe(gid)
	defer done()
	poll := time.NewTicker(waitPoll)
	defer poll.Stop()
	rec, err := e.current(ctx, gid)
	for err == nil && !settled(rec) {
		select {
		case rec = <-changed:
			if rec.GID == "" {
				return rec, errElsewhere
			}
		case <-poll.C:
			rec, err = e.current(ctx, gid)
		case <-ctx.Done():
			return rec, ctx.Err()
		case <-e.stopped:
			return rec, errStopped
		}
	}
	return rec, err
}

// current returns a transaction that is in memory, and ours for certain, as it
// was last committed, and asks the store about any other. One that is being committed counts as
// unsettled: what becomes of it is told to those who have subscribed.
func (e *Engine) current(ctx context.Context, gid string) (store.Record, error) {
	w := e.workerOf(e.shardOf(gid))
	a, err := ask(ctx, w, w.inbox, func(say func(answer)) {
		t := w.txs[gid]
		if t == nil || !w.holds(time.Now()) {
			say(answer{err: errNotLive})
			return
		}
		rec := t.rec
		if !t.durable() {
			rec.State = uint8(txn.Running)
		}
		say(answer{rec: rec})
	})
	if errors.Is(err, errNotLive) || errors.Is(err, errStopped) {
		return e.Get(ctx, gid)
	}
	return a.rec, err
}

func settled(rec store.Record) bool {
	s := txn.State(rec.State)
	return s.Finished() || s == txn.Parked
}

// Changed returns a channel that holds a value after each durable transition of
// a transaction on this engine, and a function that gives it back. It is a
// hint: a transition elsewhere is not told. A record without a GID says that the
// transaction's shard has left.
func (e *Engine) Changed(gid string) (<-chan store.Record, func()) {
	return e.watch.subscribe(gid)
}

// unavailable is a store's error as callers see it: something to try again. A
// context's own error stays what it is.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return amendsv1.ErrUnavailable.With("the store does not answer: %v", err)
}
