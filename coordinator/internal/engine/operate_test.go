package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

const (
	retry    = amendsv1.Verb_VERB_RETRY_NOW
	abort    = amendsv1.Verb_VERB_ABORT
	pauseIt  = amendsv1.Verb_VERB_PAUSE
	resume   = amendsv1.Verb_VERB_RESUME
	skip     = amendsv1.Verb_VERB_SKIP_STEP
	complete = amendsv1.Verb_VERB_COMPLETE_STEP
	fail     = amendsv1.Verb_VERB_FAIL_STEP
	abandon  = amendsv1.Verb_VERB_ABANDON
)

func (r *running) act(c Command) (store.Record, error) {
	r.t.Helper()
	c.Reason, c.Actor = "because", "alice"
	return r.Act(r.t.Context(), c)
}

func (r *running) mustAct(c Command) store.Record {
	r.t.Helper()
	rec, err := r.act(c)
	if err != nil {
		r.t.Fatalf("%v of %s %s: %v", c.Verb, c.GID, c.Branch, err)
	}
	return rec
}

// trailOf are the types of a transaction's audit events.
func trailOf(t *testing.T, st store.Store, gid string) string {
	t.Helper()
	events, err := st.Events(t.Context(), gid, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, ev := range events {
		types = append(types, ev.Type)
	}
	return strings.Join(types, " ")
}

// hang answers no call of step b.
func hang(c dispatch.Call) txn.Replied {
	if c.Name == "b" {
		return txn.Replied{}
	}
	return ok(c)
}

// unknownB never knows what became of step b.
func unknownB(c dispatch.Call) txn.Replied {
	if c.Name == "b" && c.Op == txn.Do {
		return txn.Replied{Outcome: txn.Unknown, Message: "no answer"}
	}
	return ok(c)
}

// TestVerbsMoveATransaction: each verb, where the participant of step b never
// answers, with the audit event that goes with it.
func TestVerbsMoveATransaction(t *testing.T) {
	for _, c := range []struct {
		verb  amendsv1.Verb
		trail string
		ends  txn.State
	}{
		{skip, "started replied skip replied", txn.Committed},
		{complete, "started replied complete replied", txn.Committed},
		{fail, "started replied fail", txn.RollingBack},
		{abort, "started replied abort", txn.RollingBack},
		{abandon, "started replied abandon", txn.Abandoned},
	} {
		t.Run(c.verb.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newStore()
				r := launch(t, st, nil, hang)
				r.startSaga("g", steps(3))
				synctest.Wait()
				cmd := Command{Verb: c.verb, GID: "g", Branch: "b"}
				if c.verb == abort || c.verb == abandon {
					cmd.Branch = ""
				}
				r.mustAct(cmd)
				synctest.Wait()
				rec, err := st.Load(t.Context(), "g")
				if err != nil || txn.State(rec.State) != c.ends {
					t.Errorf("it is %v, %v; want %v", txn.State(rec.State), err, c.ends)
				}
				if got := trailOf(t, st, "g"); got != c.trail {
					t.Errorf("trail %q, want %q", got, c.trail)
				}
				events, _ := st.Events(t.Context(), "g", 2, 1)
				if text := string(events[0].Data); !strings.Contains(text, `"actor":"alice","reason":"because"`) {
					t.Errorf("the event does not say who and why: %s", text)
				}
				checkTrail(t, st, "g")
			})
		})
	}
}

// TestRetryNow does not wait for the backoff.
func TestRetryNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		st := newStore()
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if !well.Load() {
				return unknownB(c)
			}
			return ok(c)
		})
		for _, gid := range []string{"all", "one"} {
			r.startSaga(gid, steps(3, func(d *saga.Definition) {
				d.Steps[1].Retry = txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}
			}))
		}
		time.Sleep(5 * time.Minute) // they have left memory
		well.Store(true)
		began := time.Now()
		r.mustAct(Command{Verb: retry, GID: "all"})
		r.mustAct(Command{Verb: retry, GID: "one", Branch: "b"})
		for _, gid := range []string{"all", "one"} {
			if got := r.wait(gid); got != txn.Committed || time.Since(began) > time.Second {
				t.Errorf("%s is %v after %v, want COMMITTED at once", gid, got, time.Since(began))
			}
		}
	})
}

// TestRetryUnparks: a stuck undo is tried again, at once.
func TestRetryUnparks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		st := newStore()
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			refuses := c.Name == "c" && c.Op == txn.Do || c.Name == "a" && c.Op == txn.Undo && !mended.Load()
			if refuses {
				return txn.Replied{Outcome: txn.Refused, Message: "no"}
			}
			return ok(c)
		})
		r.startSaga("g", steps(3))
		if got := r.wait("g"); got != txn.Parked {
			t.Fatalf("it is %v, want PARKED", got)
		}
		if rec, err := st.Load(t.Context(), "g"); err != nil || rec.WaitsFor != "svc" {
			t.Errorf("it waits for %q (%v), want %q", rec.WaitsFor, err, "svc")
		}
		mended.Store(true)
		began := time.Now()
		r.mustAct(Command{Verb: retry, GID: "g"})
		for r.wait("g") != txn.RolledBack && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		if time.Since(began) > 50*time.Millisecond {
			t.Errorf("rolled back after %v, want at once", time.Since(began))
		}
		checkTrail(t, st, "g")
	})
}

// TestPause: nothing goes out, over a crash too, what comes in is taken, and
// the deadline waits.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		release := make(chan struct{})
		r := launch(t, first, nil, func(c dispatch.Call) txn.Replied {
			if c.Name == "a" {
				<-release
			}
			return ok(c)
		})
		r.startSaga("g", steps(3, func(d *saga.Definition) { d.Timeout = time.Minute }))
		synctest.Wait()
		r.mustAct(Command{Verb: pauseIt, GID: "g"})
		if _, err := r.act(Command{Verb: pauseIt, GID: "g"}); !errors.Is(err, amendsv1.ErrIllegalVerb) {
			t.Errorf("paused twice: %v", err)
		}
		close(release) // the answer of a comes
		time.Sleep(time.Hour)
		if n := r.p.calls(txn.Do); n != 1 {
			t.Errorf("%d calls went out, want only that before the pause", n)
		}
		first.cut.Store(true)
		_ = r.end()

		r = launch(t, st, nil, ok)
		time.Sleep(time.Hour)
		rec, err := st.Load(t.Context(), "g")
		if err != nil || !rec.Paused || txn.State(rec.State) != txn.Running || r.p.calls(txn.Do) != 0 {
			t.Errorf("after a crash: paused %t, %v, %d calls (%v)", rec.Paused, txn.State(rec.State), r.p.calls(txn.Do), err)
		}
		if rec.Stalled {
			t.Error("a paused transaction is stalled")
		}
		r.mustAct(Command{Verb: resume, GID: "g"})
		if got := r.wait("g"); got != txn.RolledBack {
			t.Errorf("resumed past its deadline it is %v, want ROLLED_BACK", got)
		}
		if got := trailOf(t, st, "g"); !strings.HasPrefix(got, "started pause replied resume") {
			t.Errorf("trail %q", got)
		}
	})
}

// TestPausedCallIsNotSent: a call that no participant has seen is taken back.
func TestPauseTakesBackCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, unknownB)
		r.startSaga("g", steps(3))
		time.Sleep(10 * time.Second)
		r.mustAct(Command{Verb: pauseIt, GID: "g"})
		synctest.Wait()
		if n := r.Live(); n != 0 {
			t.Errorf("%d transactions in memory, want none: it waits for a person", n)
		}
		before := r.p.calls(txn.Do)
		time.Sleep(time.Hour)
		if n := r.p.calls(txn.Do); n != before {
			t.Errorf("%d calls while paused", n-before)
		}
		r.mustAct(Command{Verb: skip, GID: "g", Branch: "b"})
		synctest.Wait()
		if n := r.p.calls(txn.Do); n != before {
			t.Error("skipping sent the next call of a paused transaction")
		}
		r.mustAct(Command{Verb: resume, GID: "g"})
		if got := r.wait("g"); got != txn.Committed {
			t.Errorf("it is %v, want COMMITTED", got)
		}
	})
}

// TestStalled: marked when it has waited for the threshold, over retries and a
// crash, found by service, and no longer marked when it gets on.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var well atomic.Bool
		st := newStore()
		answer := func(c dispatch.Call) txn.Replied {
			if !well.Load() {
				return unknownB(c)
			}
			return ok(c)
		}
		first := &faulty{Store: st}
		r := launch(t, first, nil, answer)
		r.startSaga("retried", steps(3))
		r.startSaga("asleep", steps(3, func(d *saga.Definition) {
			d.Steps[1].Retry = txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}
		}))
		time.Sleep(40 * time.Second)
		first.cut.Store(true)
		_ = r.end()
		r = launch(t, st, nil, answer)
		time.Sleep(15 * time.Second)
		yes := true
		stalled := func() int {
			found, err := st.List(t.Context(), store.Query{Stalled: &yes, WaitsFor: "svc"}, nil, 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(found)
		}
		if n := stalled(); n != 0 {
			t.Errorf("%d are stalled after 55 s, want none", n)
		}
		time.Sleep(8 * time.Second)
		if n := stalled(); n != 2 {
			t.Errorf("%d are stalled after 63 s, want both", n)
		}
		time.Sleep(10 * time.Minute)
		if got := trailOf(t, st, "asleep"); got != "started replied replied stalled" {
			t.Errorf("trail %q", got)
		}
		well.Store(true)
		r.mustAct(Command{Verb: retry, GID: "asleep"})
		r.mustAct(Command{Verb: retry, GID: "retried"})
		if r.wait("retried"); r.wait("asleep") != txn.Committed || stalled() != 0 {
			t.Errorf("%d are stalled when they have got on", stalled())
		}
	})
}

// TestIllegalVerbs say what would be legal and change nothing.
func TestIllegalVerbs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, hang)
		r.startSaga("g", steps(3))
		synctest.Wait()
		before, _ := st.Load(t.Context(), "g")
		for name, c := range map[string]struct {
			cmd  Command
			err  error
			says string
		}{
			"done step":   {Command{Verb: skip, GID: "g", Branch: "a"}, amendsv1.ErrIllegalVerb, "abort"},
			"no branch":   {Command{Verb: skip, GID: "g"}, amendsv1.ErrIllegalVerb, "name it"},
			"no such":     {Command{Verb: skip, GID: "g", Branch: "z"}, amendsv1.ErrInvalidArgument, `"z"`},
			"not paused":  {Command{Verb: resume, GID: "g"}, amendsv1.ErrIllegalVerb, "pause"},
			"old etag":    {Command{Verb: abort, GID: "g", ETag: "1"}, amendsv1.ErrETag, `"1"`},
			"not there":   {Command{Verb: abort, GID: "h"}, amendsv1.ErrNotFound, `"h"`},
			"no verb":     {Command{GID: "g"}, amendsv1.ErrInvalidArgument, "verb"},
			"only tested": {Command{Verb: abort, GID: "g", ETag: "2", ValidateOnly: true}, nil, ""},
		} {
			_, err := r.act(c.cmd)
			if !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %v that says %q", name, err, c.err, c.says)
			}
		}
		if after, err := st.Load(t.Context(), "g"); err != nil || after.Version != before.Version {
			t.Errorf("it is at version %d, %v; want %d", after.Version, err, before.Version)
		}
		r.mustAct(Command{Verb: abandon, GID: "g"})
		for _, v := range []amendsv1.Verb{retry, abort, pauseIt, resume, abandon} {
			if _, err := r.act(Command{Verb: v, GID: "g"}); !errors.Is(err, amendsv1.ErrIllegalVerb) {
				t.Errorf("%v of an abandoned one: %v", v, err)
			}
		}
	})
}

// TestRequestIDs: a repetition is answered and does nothing, after a crash too.
func TestRequestIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		r := launch(t, first, nil, hang)
		r.startSaga("g", steps(3))
		synctest.Wait()
		c := Command{Verb: pauseIt, GID: "g", RequestID: "r1"}
		r.mustAct(c)
		r.mustAct(c)
		first.cut.Store(true)
		_ = r.end()
		r = launch(t, st, nil, hang)
		r.startSaga("another", steps(1))
		if rec := r.mustAct(c); !rec.Paused {
			t.Error("the repetition is answered with another state")
		}
		if _, err := r.act(Command{Verb: resume, GID: "g", RequestID: "r1"}); !errors.Is(err, amendsv1.ErrRequestConflict) {
			t.Errorf("the id with another verb: %v", err)
		}
		if got := trailOf(t, st, "g"); got != "started replied pause" {
			t.Errorf("trail %q", got)
		}
		for i := range 2 * maxRequests {
			r.mustAct(Command{Verb: []amendsv1.Verb{resume, pauseIt}[i%2], GID: "g", RequestID: fmt.Sprint(i)})
		}
		rec, err := st.Load(t.Context(), "g")
		if _, own, split := decode(&rec); err != nil || split != nil || len(own) > 2000 {
			t.Errorf("%d bytes for requests, %v %v", len(own), err, split)
		}
	})
}

// TestLegalIsWhatActTakes: what Legal lists is taken, what it does not is not.
func TestLegalIsWhatActTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, hang)
		r.startSaga("g", steps(3))
		synctest.Wait()
		for _, paused := range []bool{false, true} {
			if paused {
				r.mustAct(Command{Verb: pauseIt, GID: "g"})
			}
			rec, _ := st.Load(t.Context(), "g")
			whole, branches, err := r.Legal(rec)
			if err != nil {
				t.Fatal(err)
			}
			for v := retry; v <= abandon; v++ {
				check := func(branch string, listed []amendsv1.Verb) {
					_, err := r.act(Command{Verb: v, GID: "g", Branch: branch, ValidateOnly: true})
					if has := strings.Contains(fmt.Sprint(listed), v.String()); has != (err == nil) {
						t.Errorf("paused %t: %v of %q is listed: %t, and answered with %v", paused, v, branch, has, err)
					}
				}
				check("", whole)
				if v >= skip && v != abandon || v == retry {
					for i, b := range []string{"a", "b", "c"} {
						check(b, branches[i])
					}
				}
			}
		}
	})
}
