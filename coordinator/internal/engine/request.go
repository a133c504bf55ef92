package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// waitPoll is how often a waiter looks into the store, in case the transition
// that it waits for happened elsewhere.
const waitPoll = 2 * time.Second

// answer is what a worker says to a request.
type answer struct {
	rec     store.Record
	reply   []byte
	created bool
	err     error
}

// StartSaga stores a saga durably, then drives it. A gid that was started
// before with the same content returns that transaction and created=false;
// with other content the error is ErrGIDConflict.
func (e *Engine) StartSaga(ctx context.Context, gid string, d *saga.Definition, labels map[string]string) (store.Record, bool, error) {
	def, err := d.Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	m := &sagaMachine{d: d, s: saga.New(d)}
	return e.start(ctx, e.newRecord(gid, KindSaga, d.Name, def, d.Timeout, labels), m)
}

// BeginTCC stores a TCC transaction durably. It is idempotent as StartSaga is.
func (e *Engine) BeginTCC(ctx context.Context, gid string, d *tcc.Definition, labels map[string]string) (store.Record, bool, error) {
	def, err := d.Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	m := &tccMachine{d: d, s: tcc.New(d)}
	return e.start(ctx, e.newRecord(gid, KindTCC, d.Name, def, d.Timeout, labels), m)
}

func (e *Engine) newRecord(gid, kind, name string, def []byte, timeout time.Duration, labels map[string]string) store.Record {
	now := stamp(time.Now())
	rec := store.Record{
		GID: gid, Shard: e.shardOf(gid), Kind: kind, Name: name, Definition: def, Labels: labels,
		Digest: digest(kind, def, labels), CreatedAt: now, Namespace: namespaceOf(gid),
	}
	if timeout > 0 {
		rec.Deadline = now.Add(timeout)
	}
	return rec
}

// namespaceOf is what lists find a record by.
func namespaceOf(key string) string {
	if namespace, _, bulk := wire.SplitBulk(key); bulk {
		return wire.BulkNamespace(namespace)
	}
	namespace, _ := wire.Split(key)
	return namespace
}

// digest tells a repeated start from another one under the same gid.
func digest(kind string, def []byte, labels map[string]string) []byte {
	l, _ := json.Marshal(labels) // a map of strings always encodes, sorted by key
	h := sha256.New()
	for _, part := range [][]byte{[]byte(kind), def, l} {
		sum := sha256.Sum256(part)
		_, _ = h.Write(sum[:]) // never fails
	}
	return h.Sum(nil)
}

func (e *Engine) start(ctx context.Context, rec store.Record, m machine) (store.Record, bool, error) {
	if err := e.admit(ctx); err != nil {
		return store.Record{}, false, err
	}
	w := e.workerOf(rec.Shard)
	for {
		seq := w.gone.count.Load()
		prior, err := e.store.Load(ctx, rec.GID)
		if err == nil {
			return sameStart(prior, rec)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return store.Record{}, false, unavailable(err)
		}
		a, err := ask(ctx, w, func(say func(answer)) { w.start(rec, m, traceOf(ctx), seq, say) })
		if errors.Is(err, errStale) {
			continue
		}
		return a.rec, a.created, err
	}
}

// admit lets requests in between the first lease and the drain.
func (e *Engine) admit(ctx context.Context) error {
	select {
	case <-e.ready:
	case <-e.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	if e.draining.Load() {
		return errStopped
	}
	return nil
}

// sameStart answers a start under a gid that is taken.
func sameStart(prior, rec store.Record) (store.Record, bool, error) {
	if !bytes.Equal(prior.Digest, rec.Digest) {
		return store.Record{}, false, amendsv1.ErrGIDConflict.With(
			"gid %q was started with other content (as %s %q); use another gid, or the same content to get the same transaction",
			rec.GID, prior.Kind, prior.Name)
	}
	return prior, false, nil
}

func (w *worker) start(rec store.Record, m machine, trace string, seq uint64, say func(answer)) {
	if t := w.txs[rec.GID]; t != nil {
		t.afterDurable(func(now store.Record, err error) {
			if err == nil {
				now, _, err = sameStart(now, rec)
			}
			say(answer{rec: now, err: err})
		})
		return
	}
	sh := w.shards[rec.Shard]
	switch {
	case sh == nil:
		say(answer{err: errElsewhere})
	case seq < sh.since || !w.gone.current(rec.GID, seq):
		say(answer{err: errStale})
	default:
		if err := w.admits(rec, m); err != nil {
			say(answer{err: err})
			return
		}
		t := &tx{rec: rec, m: m, trace: trace, fresh: true, gotOn: true, since: time.Now()}
		d := detail{State: m.phase().String(), Name: rec.Name, Digest: rec.Digest}
		if err := t.note("started", d, rec.CreatedAt); err != nil {
			say(answer{err: err})
			return
		}
		if err := w.e.quotas.take(&t.rec, time.Now()); err != nil {
			w.e.meters.refused.Add(refusedQuota)
			say(answer{err: err})
			return
		}
		w.adopt(t, w.e.started)
		w.touch(t)
		t.afterDurable(func(rec store.Record, err error) { say(answer{rec: rec, created: true, err: err}) })
	}
}

// Try registers a branch durably, has its try called, and waits for the answer.
// A try that was refused or that came too late says so by its error.
func (e *Engine) Try(ctx context.Context, gid string, b tcc.Branch) ([]byte, error) {
	a, err := e.command(ctx, gid, func(w *worker, t *tx, say func(answer)) {
		w.expire(t, time.Now())
		if t.rec.Kind != KindTCC {
			say(answer{err: amendsv1.ErrWrongKind.With("transaction %q is a %s: only TCC transactions take tries", gid, t.rec.Kind)})
			return
		}
		if err := w.admitsTry(t, b); err != nil {
			say(answer{err: err})
			return
		}
		if err := w.apply(t, tcc.Try{Branch: b}, ""); err != nil {
			w.sayDurable(t, say, refusal(gid, t.m, err))
			return
		}
		t.tries = append(t.tries, tryWaiter{branch: b.Name, answer: func(reply []byte, err error) {
			say(answer{reply: reply, err: err})
		}})
		if t.durable() {
			t.answerTries()
		}
	})
	return a.reply, err
}

// Commit decides to confirm a TCC transaction. It returns when the decision is
// durable.
func (e *Engine) Commit(ctx context.Context, gid string) (store.Record, error) {
	a, err := e.command(ctx, gid, func(w *worker, t *tx, say func(answer)) {
		w.expire(t, time.Now())
		if t.rec.Kind != KindTCC {
			say(answer{err: amendsv1.ErrWrongKind.With("transaction %q is a %s: it commits by itself", gid, t.rec.Kind)})
			return
		}
		if err := w.apply(t, tcc.Commit{}, ""); err != nil {
			w.sayDurable(t, say, refusal(gid, t.m, err))
			return
		}
		w.sayDurable(t, say, nil)
	})
	return a.rec, err
}

// Abort decides to undo a saga or cancel a TCC transaction. It returns when the
// decision is durable; one that is decided otherwise is ErrDecided.
func (e *Engine) Abort(ctx context.Context, gid, actor, reason string) (store.Record, error) {
	a, err := e.command(ctx, gid, func(w *worker, t *tx, say func(answer)) {
		ev := txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted, Message: reason}}
		if err := w.apply(t, ev, actor); err != nil {
			w.sayDurable(t, say, refusal(gid, t.m, err))
			return
		}
		var err error
		if !t.m.turnedBack() {
			err = amendsv1.ErrDecided.With("transaction %q is %v and can no longer turn back", gid, t.m.phase())
		}
		w.sayDurable(t, say, err)
	})
	return a.rec, err
}

// sayDurable answers once what is in memory is durable, so that nobody hears
// of a decision that a crash could take back.
func (w *worker) sayDurable(t *tx, say func(answer), err error) {
	t.afterDurable(func(rec store.Record, lost error) {
		if lost != nil {
			err = lost
		}
		say(answer{rec: rec, err: err})
	})
}

// command runs fn on a transaction that may have to be loaded first.
func (e *Engine) command(ctx context.Context, gid string, fn func(w *worker, t *tx, say func(answer))) (answer, error) {
	if err := e.admit(ctx); err != nil {
		return answer{}, err
	}
	w := e.workerOf(e.shardOf(gid))
	var prior *store.Record
	var seq uint64
	for {
		a, err := ask(ctx, w, func(say func(answer)) {
			t, err := w.find(gid, prior, seq)
			if err != nil {
				say(answer{err: err})
				return
			}
			fn(w, t, say)
			if t.durable() {
				w.act(t, time.Now())
			}
		})
		if !errors.Is(err, errNotLive) && !errors.Is(err, errStale) {
			return a, err
		}
		seq = w.gone.count.Load()
		rec, err := e.Get(ctx, gid)
		if err != nil {
			return answer{}, err
		}
		prior = &rec
	}
}

// find returns a transaction from memory, or takes the record into memory that
// was read for it.
func (w *worker) find(gid string, prior *store.Record, seq uint64) (*tx, error) {
	if t := w.txs[gid]; t != nil {
		return t, nil
	}
	if prior == nil {
		return nil, errNotLive
	}
	return w.load(*prior, seq)
}

// ask runs fn on the worker and waits for what it says.
func ask(ctx context.Context, w *worker, fn func(say func(answer))) (answer, error) {
	ch := make(chan answer, 1)
	say := func(a answer) {
		select {
		case ch <- a:
		default: // said already
		}
	}
	if err := w.post(ctx, func() { fn(say) }); err != nil {
		return answer{}, err
	}
	select {
	case a := <-ch:
		return a, a.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-w.e.stopped:
		return answer{}, errStopped
	}
}

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
// context's error.
func (e *Engine) Wait(ctx context.Context, gid string) (store.Record, error) {
	changed, done := e.watch.subscribe(gid)
	defer done()
	poll := time.NewTicker(waitPoll)
	defer poll.Stop()
	rec, err := e.Get(ctx, gid)
	for err == nil && !settled(rec) {
		select {
		case rec = <-changed:
		case <-poll.C:
			rec, err = e.Get(ctx, gid)
		case <-ctx.Done():
			return rec, ctx.Err()
		case <-e.stopped:
			return rec, errStopped
		}
	}
	return rec, err
}

func settled(rec store.Record) bool {
	s := txn.State(rec.State)
	return s.Finished() || s == txn.Parked
}

// Changed returns a channel that holds a value after each durable transition of
// a transaction on this engine, and a function that gives it back. It is a
// hint: a transition elsewhere is not told.
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
