package engine

import (
	"bytes"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// tx is a transaction in memory. Only its worker touches it.
type tx struct {
	rec    store.Record   // as last committed or put into a batch; the audit head runs ahead
	m      machine        // what is in memory, maybe ahead of rec.Body
	calls  []call         // what m waits for, by branch
	events []store.Event  // not yet in a batch
	hooks  []hook         // to run when what is in memory is durable
	tries  []tryWaiter    // who waits for a try's answer
	commit []func(answer) // who waits for tries to be answered again, to commit
	dirty  bool           // m is ahead of the last batch
	soft   bool           // and what it is ahead by may be lost
	flying bool           // in the batch that is being committed
	room   *room          // that it takes a place in
	waits  []string       // the services that the room has it down for
	loaded int64          // the version that came from the store; 0: started here
	known  int            // the branches that it had when it was loaded
	fresh  bool           // loaded or started, its calls not yet scheduled
	recall bool           // what no participant has seen is not to be done, or not now
	expiry bool           // its deadline has been dealt with
	urgent []int          // branches (or txn.All) that an operator asked to retry now
	wakeAt time.Time      // when the timer heap wakes it
	slot   int            // its place in the timer heap, from 1; 0: not in it

	base      machine   // what is stored, while it is in memory; nil: nothing yet
	leads     bool      // base says that calls may be ahead of it
	heldUntil time.Time // when it was last held

	dueAt    time.Time     // of the first call that is to go out; zero: none is
	since    time.Time     // when it last got on: anything but one more try
	gotOn    bool          // since the last batch
	begun    bool          // an outcome has got it on: its calls come before those of new ones
	patience time.Duration // after which it is stalled; negative: never
	requests requests      // of operators, that are known when repeated
	trace    string        // of whoever started it, for its calls; empty: none
}

// hook runs when a change is durable, or was given up with an error.
type hook func(rec store.Record, err error)

type tryWaiter struct {
	branch string
	answer func(reply []byte, err error)
}

// call is a call that the machine waits for, and what became of it so far.
type call struct {
	txn.Call
	due  time.Time
	sent bool
	at   time.Time // when it was sent
}

// same reports whether c is the call that the machine wants.
func (c *call) same(want txn.Call) bool {
	return c.Branch == want.Branch && c.Op == want.Op && c.Attempt == want.Attempt
}

func (t *tx) durable() bool { return !t.dirty && !t.flying }

// afterDurable runs h when everything in memory is durable: now, or with the
// commit that makes it so.
func (t *tx) afterDurable(h hook) {
	if t.durable() {
		h(t.rec, nil)
		return
	}
	t.hooks = append(t.hooks, h)
}

// schedule brings calls in line with what the machine now waits for: first
// attempts are due at once, later ones after their backoff, and those of a
// transaction just loaded when its record says. It returns when the
// transaction is next due: at once while a call is under way, so that whoever
// loads it after a crash asks again at once.
func (t *tx) schedule(now time.Time, rnd func() float64) time.Time {
	var next time.Time
	earlier := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	old, calls, due := t.calls, make([]call, 0, len(t.calls)), time.Time{}
	for _, want := range t.m.outstanding() {
		for len(old) > 0 && old[0].Branch < want.Branch {
			old = old[1:]
		}
		c := call{Call: want, due: now}
		if len(old) > 0 && old[0].same(want) {
			c.due, c.sent, c.at = old[0].due, old[0].sent, old[0].at
		} else if want.Attempt > 1 && t.fresh {
			c.due = later(now, t.dueAt)
		} else if want.Attempt > 1 {
			c.due = now.Add(want.Retry.Delay(want.Attempt-1, rnd()))
		}
		if !c.sent && t.isUrgent(want.Branch) {
			c.due = now
		}
		calls = append(calls, c)
		if c.sent {
			earlier(now)
		} else {
			earlier(c.due)
		}
		due = next
	}
	t.calls, t.dueAt, t.fresh, t.urgent = calls, due, false, nil
	t.recount()
	if t.rec.Paused {
		return time.Time{} // only a person moves it
	}
	if t.rec.Kind == KindBulk {
		earlier(now) // the sweep hands it to the bulk loop
	}
	if d := t.deadline(); !d.IsZero() {
		earlier(d)
	}
	if s := t.stallsAt(); !s.IsZero() {
		earlier(s)
	}
	return next
}

func (t *tx) isUrgent(branch int) bool {
	return slices.Contains(t.urgent, branch) || slices.Contains(t.urgent, txn.All)
}

// deadline is when the transaction must turn back or ask its check, or zero.
func (t *tx) deadline() time.Time {
	if t.expiry || t.rec.Paused || t.m.phase() != txn.Running {
		return time.Time{}
	}
	return t.rec.Deadline
}

// nextWake is when a timer must look at the transaction again; calls under way
// wake it by their outcome.
func (t *tx) nextWake() time.Time {
	if t.rec.Paused {
		return time.Time{}
	}
	next := t.deadline()
	if s := t.stallsAt(); !s.IsZero() && (next.IsZero() || s.Before(next)) {
		next = s
	}
	for _, c := range t.calls {
		if !c.sent && (next.IsZero() || c.due.Before(next)) {
			next = c.due
		}
	}
	return next
}

// idle reports whether nothing but a person can move the transaction.
func (t *tx) idle() bool {
	if t.rec.Paused {
		return !t.calling()
	}
	return len(t.calls) == 0 && t.deadline().IsZero()
}

// calling reports whether a call is under way.
func (t *tx) calling() bool {
	return slices.ContainsFunc(t.calls, func(c call) bool { return c.sent })
}

// write encodes the transaction for a batch and takes over its events.
func (t *tx) write(now, next time.Time) (store.Write, error) {
	state, err := t.m.encode()
	if err != nil {
		return store.Write{}, err
	}
	if t.gotOn {
		t.rec.Stalled = false
	}
	rec := &t.rec
	if !next.IsZero() && !next.After(now) && !rec.NextAt.IsZero() && !rec.NextAt.After(now) {
		next = rec.NextAt // at once, as it was: its place in the index stays
	}
	own, err := t.own(now, next)
	if err != nil {
		return store.Write{}, err
	}
	body := wire.JoinBody(state, own)
	rec.Version++
	rec.WaitsFor = ""
	if rec.Stalled || t.m.phase() == txn.Parked {
		rec.WaitsFor = t.waitsFor()
	}
	rec.State, rec.Body, rec.UpdatedAt, rec.NextAt = uint8(t.m.phase()), body, now, next
	if cause := t.m.cause(); cause != nil {
		rec.Reason = cause.String()
	} else {
		rec.Reason = ""
	}
	if t.m.phase().Finished() {
		rec.FinishedAt, rec.NextAt, rec.Paused = now, time.Time{}, false
	}
	w := store.Write{Record: *rec, Events: t.events}
	t.events = nil
	return w, nil
}

// answerTries tells those who wait for a try what its branch says, now that it
// is durable.
func (t *tx) answerTries() {
	m, ok := t.m.(*tccMachine)
	if !ok || len(t.tries) == 0 {
		return
	}
	waiting := t.tries[:0]
	for _, w := range t.tries {
		if reply, err, answered := tryAnswer(m.s, w.branch); answered {
			w.answer(reply, err)
		} else {
			waiting = append(waiting, w)
		}
	}
	t.tries = waiting
}

// dismiss sends those away who wait for a try.
func (t *tx) dismiss(err error) {
	for _, w := range t.tries {
		w.answer(nil, err)
	}
	for _, say := range t.commit {
		say(answer{err: err})
	}
	t.tries, t.commit = nil, nil
}

// hasTried reports whether a branch of that content is registered, so that its
// outcome is recorded or on its way.
func (t *tx) hasTried(b tcc.Branch) bool {
	m, ok := t.m.(*tccMachine)
	if !ok {
		return false
	}
	i := m.s.Find(b.Name)
	if i < 0 {
		return false
	}
	was := &m.s.Branches[i].Branch
	return was.Action == b.Action && bytes.Equal(was.Payload, b.Payload) && was.Retry == b.Retry
}

func tryAnswer(s tcc.State, name string) (reply []byte, err error, answered bool) {
	for _, b := range s.Branches {
		if b.Name != name {
			continue
		}
		switch {
		case b.Phase == tcc.Trying && !s.Phase.Finished():
			return nil, nil, false
		case b.Phase == tcc.Tried, s.Decision == txn.Committing:
			return b.Reply, nil, true
		}
		break
	}
	return nil, turnedBack(s.Cause), true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
