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

// StartSaga stores a saga durably, then drives it. A gid that was started
// before with the same content returns that transaction and created=false;
// with other content the error is ErrGIDConflict.
func (e *Engine) StartSaga(ctx context.Context, gid string, d *saga.Definition, labels map[string]string) (store.Record, bool, error) {
	def, err := d.Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	rec := e.newRecord(gid, KindSaga, d.Name, def, d.Timeout, labels)
	return e.start(ctx, opening{rec: rec, m: &sagaMachine{d: d, s: saga.New(d)}})
}

// BeginTCC stores a TCC transaction durably. It is idempotent as StartSaga is.
func (e *Engine) BeginTCC(ctx context.Context, gid string, d *tcc.Definition, labels map[string]string) (store.Record, bool, error) {
	def, err := d.Encode()
	if err != nil {
		return store.Record{}, false, err
	}
	rec := e.newRecord(gid, KindTCC, d.Name, def, d.Timeout, labels)
	return e.start(ctx, opening{rec: rec, m: &tccMachine{d: d, s: tcc.New(d)}})
}

// BeginTry is BeginTCC and then Try, in one commit where there is nothing of that
// gid yet.
func (e *Engine) BeginTry(ctx context.Context, gid string, d *tcc.Definition, labels map[string]string, b tcc.Branch) ([]byte, error) {
	def, err := d.Encode()
	if err != nil {
		return nil, err
	}
	ev := tcc.Try{Branch: b}
	s, err := tcc.New(d).Advance(d, ev)
	if err != nil {
		return nil, amendsv1.ErrInvalidArgument.With("%v", err)
	}
	o := opening{rec: e.newRecord(gid, KindTCC, d.Name, def, d.Timeout, labels), m: &tccMachine{d: d, s: s}, ev: ev}
	var tried <-chan answer
	tried, o.say = oneAnswer()
	if _, created, err := e.start(ctx, o); err != nil {
		return nil, err
	} else if !created {
		return e.Try(ctx, gid, b)
	}
	a, err := e.await(ctx, tried)
	return a.reply, err
}

// opening is a transaction as it begins: with a branch, where ev registers one.
type opening struct {
	rec store.Record
	m   machine
	ev  txn.Event    // a tcc.Try that came with the start; nil: none
	say func(answer) // hears of its try, if it is this start that began it
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

func (e *Engine) start(ctx context.Context, o opening) (store.Record, bool, error) {
	if err := e.admit(ctx); err != nil {
		return store.Record{}, false, err
	}
	waiting := e.starting.Add(1) > maxStarting // counted first: all who come at once are
	defer e.starting.Add(-1)
	if err := e.turnsAway(&o.rec, o.m, waiting); err != nil {
		return store.Record{}, false, err
	}
	w := e.workerOf(o.rec.Shard)
	for {
		seq := w.gone.count.Load()
		prior, err := e.store.Load(ctx, o.rec.GID)
		if err == nil {
			return sameStart(prior, o.rec)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return store.Record{}, false, unavailable(err)
		}
		a, err := ask(ctx, w, w.starts, func(say func(answer)) { w.start(o, traceOf(ctx), seq, say) })
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

func (w *worker) start(o opening, trace string, seq uint64, say func(answer)) {
	rec, m := o.rec, o.m
	if t := w.txs[rec.GID]; t != nil && !w.shards[rec.Shard].shut() {
		w.harden(t)
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
	case sh.shut():
		say(answer{err: errElsewhere})
	case seq < sh.since || !w.gone.current(rec.GID, seq):
		say(answer{err: errStale})
	default:
		if err := w.admits(rec, m); err != nil {
			say(answer{err: err})
			return
		}
		t := &tx{rec: rec, m: m, trace: trace, fresh: true, gotOn: true, since: time.Now()}
		if err := t.noteStart(o.ev); err != nil {
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
		if try, ok := o.ev.(tcc.Try); ok {
			t.awaitTry(try.Branch.Name, o.say)
		}
	}
}

// noteStart notes the start of a transaction, and the try that came with it, if
// one did.
func (t *tx) noteStart(ev txn.Event) error {
	d := detail{State: t.m.phase().String(), Name: t.rec.Name, Digest: t.rec.Digest}
	if err := t.note("started", d, t.rec.CreatedAt); err != nil || ev == nil {
		return err
	}
	return t.note(ev.EventType(), detailOf(ev, t.m, ""), t.rec.CreatedAt)
}
