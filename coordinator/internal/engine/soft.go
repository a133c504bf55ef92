package engine

import (
	"time"

	"github.com/amends-dev/amends/coordinator/internal/ahead"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// A transition is soft when it may be lost, because it comes again: the reply
// that made it is recorded where the effect is, and whoever asks after a crash
// gets it again. So it waits for what is stored next of the transaction, and the
// next steps forward are called meanwhile. Everything else is stored before
// anything comes of it, and so is what is soft once something else has happened.

// softHold is how long a soft transition waits for another one to be stored with.
const softHold = 100 * time.Millisecond

// held is a transaction with nothing but soft transitions to be stored.
type held struct {
	tx    *tx
	until time.Time
}

// outcome takes what dispatch delivers.
func (w *worker) outcome(o dispatch.Outcome) {
	t := w.txs[o.GID]
	if t == nil || w.shards[t.rec.Shard].shut() {
		return // finished, parked or not ours: nothing waits for it
	}
	was, soft := t.m, false
	next, err := t.m.advance(o.Replied)
	if err == nil && next != was {
		d := detailOf(o.Replied, next, "")
		if soft = w.soft(t, next, &o); soft {
			err = w.change(t, next, o.Replied, d)
		} else {
			err = w.become(t, next, o.Replied, d)
		}
	}
	if err != nil {
		w.log.Warn("amends: an outcome was not taken", "gid", o.GID, "op", o.Op.String(), "err", err)
	}
	now := time.Now()
	w.settleCall(t, o.Replied, t.m != was, now)
	if t.m != was {
		t.begun = t.begun || o.Outcome != txn.Unknown
		w.answerEarly(t, &o, now)
		if soft {
			w.hold(t, now)
		}
	}
	if t.rec.Paused && t.durable() {
		w.act(t, now) // nothing may be left to wait for
	}
}

// settleCall marks the call that was answered as no longer under way. One of
// which nothing came is asked again.
func (w *worker) settleCall(t *tx, r txn.Replied, changed bool, now time.Time) {
	for i := range t.calls {
		c := &t.calls[i]
		if c.sent && c.same(txn.Call{Branch: r.Branch, Op: r.Op, Attempt: r.Attempt}) {
			w.e.spans.called(t, c, r, now)
			if !changed {
				c.sent, c.due = false, now.Add(c.Retry.Delay(c.Attempt, w.rnd.Float64()))
				w.timers.set(t, t.nextWake())
			}
			return
		}
	}
}

// soft reports whether the transition to next, which an outcome made, is soft,
// and so is whatever else is not being stored yet. A pivot's is not: from then
// on the saga cannot turn back.
func (w *worker) soft(t *tx, next machine, o *dispatch.Outcome) bool {
	if !o.Recorded || o.Outcome != txn.OK || t.dirty && !t.soft || t.base == nil || t.rec.Paused ||
		w.draining || w.shards[t.rec.Shard].leaving || next.phase() != t.m.phase() {
		return false
	}
	switch m := next.(type) {
	case *sagaMachine:
		return o.Op == txn.Do && m.d.Steps[o.Branch].Kind != saga.Pivot
	case *tccMachine:
		return o.Op == txn.Confirm || o.Op == txn.Cancel || o.Op == txn.Try && m.d.Check.Action == ""
	}
	return false
}

// hold keeps a transaction that has become soft for a while, and sends what it
// now waits for.
func (w *worker) hold(t *tx, now time.Time) {
	if !t.dirty {
		t.dirty, t.soft, t.heldUntil = true, true, now.Add(softHold)
		w.held = append(w.held, held{t, t.heldUntil})
	}
	if !t.flying {
		w.lead(t, now)
	}
}

// lead sends the calls of a transaction whose last transitions are soft, if what
// is stored of it allows for them: else they are stored first.
func (w *worker) lead(t *tx, now time.Time) {
	if w.draining || w.shards[t.rec.Shard].leaving || !t.mayLead() {
		w.touch(t)
		return
	}
	t.schedule(now, w.rnd.Float64)
	w.send(t, now)
	w.timers.set(t, t.nextWake())
}

// mayLead reports whether the calls that t waits for may go out while t.base is
// what is stored.
func (t *tx) mayLead() bool {
	m, ok := t.m.(*sagaMachine)
	if !ok {
		return true // no outcome has a TCC transaction wait for another call
	}
	base := t.base.(*sagaMachine)
	return !m.called(base) || t.leads && ahead.Early(m.d, base.s, m.s)
}

// called reports whether m has called a step that base has not.
func (m *sagaMachine) called(base *sagaMachine) bool {
	for i := range m.s.Steps {
		if m.s.Steps[i].Attempt > base.s.Steps[i].Attempt {
			return true
		}
	}
	return false
}

// release has those stored that were held for long enough.
func (w *worker) release(now time.Time) {
	n := 0
	for n < len(w.held) && !w.held[n].until.After(now) {
		n++
	}
	w.letStore(n)
}

// letStore has the first n of those that are held stored.
func (w *worker) letStore(n int) {
	if n == 0 {
		return
	}
	for i, h := range w.held[:n] {
		w.held[i].tx = nil
		if t := h.tx; t.soft && t.heldUntil.Equal(h.until) && w.txs[t.rec.GID] == t {
			w.touch(t)
		}
	}
	if w.held = w.held[n:]; len(w.held) == 0 {
		w.held = nil
	}
}

// answerEarly tells those who wait for a try that it took effect, though that is
// not stored yet, where the participant's record says it again. A transaction
// with a check does not: its owner's work comes after what is told here, and a
// deadline turns it back unasked as long as a try counts as unanswered.
func (w *worker) answerEarly(t *tx, o *dispatch.Outcome, now time.Time) {
	m, ok := t.m.(*tccMachine)
	if !ok || o.Op != txn.Try || !o.Recorded || o.Outcome != txn.OK || m.d.Check.Action != "" ||
		t.rec.Paused || m.s.Phase != txn.Running || !w.holds(now) {
		return
	}
	t.answerTry(m, m.s.Branches[o.Branch].Name)
}

// asksAgain reports whether every try without an answer was so when the
// transaction was loaded: its caller may have heard the answer that was lost.
func (t *tx) asksAgain() bool {
	m, ok := t.m.(*tccMachine)
	if !ok {
		return false
	}
	for i, b := range m.s.Branches {
		if b.Phase == tcc.Trying && i >= t.known {
			return false
		}
	}
	return true
}

// answerTry answers those who wait for the try of one branch.
func (t *tx) answerTry(m *tccMachine, branch string) {
	waiting := t.tries[:0]
	for _, w := range t.tries {
		reply, err, answered := []byte(nil), error(nil), false
		if w.branch == branch {
			reply, err, answered = tryAnswer(m.s, branch)
		}
		if answered {
			w.answer(reply, err)
		} else {
			waiting = append(waiting, w)
		}
	}
	t.tries = waiting
}
