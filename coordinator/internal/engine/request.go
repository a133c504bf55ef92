package engine

import (
	"context"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// answer is what a worker says to a request.
type answer struct {
	rec     store.Record
	reply   []byte
	created bool
	err     error
}

// Try registers a branch durably, has its try called, and waits for the answer.
// A try that was refused or that came too late says so by its error. One that
// is repeated with the same content is answered as the first is or was.
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
		if err := w.apply(t, tcc.Try{Branch: b}, ""); err != nil && !(errors.Is(err, tcc.ErrDecided) && t.hasTried(b)) {
			w.sayDurable(t, say, refusal(gid, t.m, err))
			return
		}
		t.awaitTry(b.Name, say)
		w.harden(t) // its answer may be there
		if t.durable() {
			t.answerTries()
		}
	})
	return a.reply, err
}

// awaitTry has say told what became of a branch's try.
func (t *tx) awaitTry(branch string, say func(answer)) {
	t.tries = append(t.tries, tryWaiter{branch: branch, answer: func(reply []byte, err error) {
		say(answer{reply: reply, err: err})
	}})
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
		w.decide(t, say)
	})
	return a.rec, err
}

// decide commits a transaction. In one that was loaded, tries may have been
// answered before that was stored, and are asked for again: it waits for them.
func (w *worker) decide(t *tx, say func(answer)) {
	err := w.apply(t, tcc.Commit{}, "")
	switch {
	case err == nil:
		w.sayDurable(t, say, nil)
	case errors.Is(err, tcc.ErrTryPending) && t.asksAgain():
		t.commit = append(t.commit, say)
	default:
		w.sayDurable(t, say, refusal(t.rec.GID, t.m, err))
	}
}

// commitsLate commits what waited for tries to be answered again, and reports
// whether there is something to be stored now.
func (w *worker) commitsLate(t *tx) bool {
	waiting := t.commit
	t.commit = nil
	for _, say := range waiting {
		w.decide(t, say)
	}
	return !t.durable()
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
	w.harden(t)
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
	var prior *revived
	var seq uint64
	for {
		a, err := ask(ctx, w, w.inbox, func(say func(answer)) {
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
		found := revive(rec)
		prior = &found
	}
}

// find returns a transaction from memory, or takes the one into memory that was
// read for it.
func (w *worker) find(gid string, prior *revived, seq uint64) (*tx, error) {
	if t := w.txs[gid]; t != nil {
		if w.shards[t.rec.Shard].shut() {
			return nil, errElsewhere
		}
		return t, nil
	}
	if prior == nil {
		return nil, errNotLive
	}
	return w.load(*prior, seq)
}

// ask runs fn on the worker, by one of its boxes, and waits for what it says.
func ask(ctx context.Context, w *worker, box chan<- func(), fn func(say func(answer))) (answer, error) {
	said, say := oneAnswer()
	if err := w.put(ctx, box, func() { fn(say) }); err != nil {
		return answer{}, err
	}
	return w.e.await(ctx, said)
}

// oneAnswer returns what holds the first answer that say is given.
func oneAnswer() (said <-chan answer, say func(answer)) {
	ch := make(chan answer, 1)
	return ch, func(a answer) {
		select {
		case ch <- a:
		default: // said already
		}
	}
}

// await waits for what a worker says.
func (e *Engine) await(ctx context.Context, said <-chan answer) (answer, error) {
	select {
	case a := <-said:
		if errors.Is(a.err, errElsewhere) {
			e.lookNow() // maybe it is ours by now
		}
		return a, a.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-e.stopped:
		return answer{}, errStopped
	}
}
