package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// longLine is a saga of n steps, each after the one before.
func longLine(n int) *saga.Definition {
	d := &saga.Definition{Name: "long"}
	for i := range n {
		s := saga.Step{Name: fmt.Sprintf("s%d", i), Action: "svc.act", Retry: txn.Retry{Initial: time.Millisecond, Jitter: -1}}
		if i > 0 {
			s.After = []int{i - 1}
		}
		d.Steps = append(d.Steps, s)
	}
	return d
}

// crashed starts a saga whose first step is not answered, so that calls may be
// ahead of what is stored, and crashes.
func crashed(t *testing.T, d *saga.Definition) store.Store {
	t.Helper()
	st := &faulty{Store: newStore()}
	r := launch(t, st, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
	r.startSaga("s", d)
	time.Sleep(time.Second)
	st.cut.Store(true)
	_ = r.end()
	return st.Store
}

// TestReloadIsForgotten: what a saga calls after it was loaded is known, and when
// it turns back later it undoes that and nothing else.
func TestReloadIsForgotten(t *testing.T) {
	for _, refuses := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			const last = 10
			r := launch(t, crashed(t, longLine(20)), nil, func(c dispatch.Call) txn.Replied {
				switch {
				case c.Op == txn.Undo || c.Branch < last:
					return ok(c)
				case refuses:
					return txn.Replied{Outcome: txn.Refused, Message: "no"}
				}
				return txn.Replied{}
			})
			time.Sleep(time.Minute)
			if !refuses {
				r.mustAct(Command{Verb: abort, GID: "s"})
			}
			if got := r.wait("s"); got != txn.RolledBack {
				t.Errorf("ended as %v", got)
			}
			if n := r.p.calls(txn.Undo); n != last+1 {
				t.Errorf("refused %v: %d undos, want %d: of what was called", refuses, n, last+1)
			}
			for _, ev := range checkTrail(t, r.store, "s") {
				if strings.Contains(string(ev.Data), "presumed") {
					t.Errorf("steps are presumed to be called that were: %s", ev.Data)
				}
			}
		})
	}
}

// TestOperatorMeetsAReload: an operator can neither skip a step as never called
// that may have been, nor make up the reply that it was called with. The trail
// says what was undone because of that. Kills: ahead-is-forgotten.
func TestOperatorMeetsAReload(t *testing.T) {
	for _, c := range []struct {
		name  string
		retry bool // it has to try again before: what is stored leads nowhere
	}{{"at once", false}, {"after another one has tried again", true}} {
		synctest.Test(t, func(t *testing.T) {
			st := crashed(t, steps(3))
			if c.retry {
				r := launch(t, st, nil, func(dispatch.Call) txn.Replied { return txn.Replied{Outcome: txn.Unknown} })
				time.Sleep(time.Minute)
				_ = r.end()
			}
			r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
				if c.Op == txn.Do {
					return txn.Replied{}
				}
				return ok(c)
			})
			time.Sleep(time.Minute)
			for _, cmd := range []Command{{Verb: skip, Branch: "b"}, {Verb: complete, Branch: "a", Reply: []byte(`"mine"`)}} {
				cmd.GID = "s"
				if _, err := r.act(cmd); !errors.Is(err, amendsv1.ErrIllegalVerb) || !strings.Contains(err.Error(), "may have been called") {
					t.Errorf("%s: %v of %s: %v, want ErrIllegalVerb", c.name, cmd.Verb, cmd.Branch, err)
				}
			}
			if c.retry {
				rec, err := r.store.Load(t.Context(), "s")
				if err != nil {
					t.Fatal(err)
				}
				_, branches, err := r.Legal(rec)
				if err != nil || slices.Contains(branches[0], complete) || slices.Contains(branches[1], skip) {
					t.Errorf("%s: what is shown as legal: %v, %v", c.name, branches, err)
				}
			}
			r.mustAct(Command{Verb: skip, GID: "s", Branch: "a"})
			r.mustAct(Command{Verb: skip, GID: "s", Branch: "b"}) // which was called by now
			r.mustAct(Command{Verb: abort, GID: "s"})
			if got := r.wait("s"); got != txn.RolledBack {
				t.Errorf("%s: ended as %v", c.name, got)
			}
			if n := r.p.calls(txn.Undo); n != 3 {
				t.Errorf("%s: %d undos, want 3", c.name, n)
			}
			checkTrail(t, st, "s")
		})
	}
}

// TestPresumedIsInTheTrail: the event that turns a saga back names the steps that
// it undoes without a record of their call.
func TestPresumedIsInTheTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, crashed(t, steps(3)), nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do {
				return txn.Replied{}
			}
			return ok(c)
		})
		time.Sleep(time.Minute)
		r.mustAct(Command{Verb: abort, GID: "s"})
		r.wait("s")
		events := checkTrail(t, r.store, "s")
		i := slices.IndexFunc(events, func(ev store.Event) bool { return ev.Type == "abort" })
		if i < 0 || !strings.Contains(string(events[i].Data), `"presumed":["b","c"]`) {
			t.Errorf("the trail is %s, and of the abort %s", trailOf(t, r.store, "s"), events[max(i, 0)].Data)
		}
	})
}

// TestPauseAndStallPresumeNothing: of what a person is to look at, the store says
// exactly what was called.
func TestPauseAndStallPresumeNothing(t *testing.T) {
	for _, paused := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			st := &faulty{Store: newStore()}
			r := launch(t, st, &Config{StallAfter: 10 * time.Second}, func(dispatch.Call) txn.Replied { return txn.Replied{} })
			r.p.recorded = always
			r.startSaga("s", steps(3))
			if paused {
				r.mustAct(Command{Verb: pauseIt, GID: "s"})
			}
			time.Sleep(time.Minute)
			st.cut.Store(true)
			_ = r.end()
			r = launch(t, st.Store, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
			r.startSaga("other", steps(1)) // when this one is there, shards are owned
			r.mustAct(Command{Verb: complete, GID: "s", Branch: "a", Reply: []byte(`"mine"`)})
			r.mustAct(Command{Verb: skip, GID: "s", Branch: "c"})
		})
	}
}

// TestCommitOfACrowdedService: a commit waits for a try to be answered again, at
// a service that more wait for than have room.
func TestCommitOfACrowdedService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, trips := newStore(), []string{"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"}
		first := &faulty{Store: st}
		first.commit = func(b store.Batch, real func() error) error {
			for _, w := range b.Writes {
				if strings.HasPrefix(w.Record.GID, "x") && w.Record.Version > 2 {
					return store.ErrClosed // the answer of the try is lost
				}
			}
			return real()
		}
		answer := func(c dispatch.Call) txn.Replied {
			if strings.HasPrefix(c.GID, "x") {
				return ok(c)
			}
			return unless("dead")(c)
		}
		r1 := launch(t, first, nil, answer)
		r1.p.recorded = always
		for i := range 100 {
			r1.startSaga(fmt.Sprintf("dead-%d", i), steps(1, of("dead")))
		}
		for _, gid := range trips {
			begin(t, r1, gid, time.Hour)
		}
		for _, gid := range trips {
			if _, err := r1.Try(t.Context(), gid, tcc.Branch{Name: "seat", Action: "dead.seat"}); err != nil {
				t.Fatal(err)
			}
		}
		first.cut.Store(true)
		_ = r1.end()
		r2 := launch(t, st, &Config{MaxLive: 20}, answer)
		time.Sleep(time.Minute)
		for _, gid := range trips {
			asked := time.Now()
			rec, err := r2.Commit(t.Context(), gid)
			if err != nil || txn.State(rec.State) != txn.Committing || time.Since(asked) > time.Second {
				t.Errorf("commit: %v, and it is %v after %v, want COMMITTING at once", err, txn.State(rec.State), time.Since(asked))
			}
		}
	})
}

// TestCommitWaitsOnlyForLostAnswers: after a crash, a commit before a new try was
// answered is as illegal as ever.
func TestCommitWaitsOnlyForLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		r1 := launch(t, first, nil, ok)
		r1.startSaga("first", steps(1))
		begin(t, r1, "x", time.Hour)
		first.cut.Store(true)
		_ = r1.end()
		r2 := launch(t, st, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		time.Sleep(time.Minute)
		tried := make(chan error, 1)
		go func() {
			_, err := r2.Try(t.Context(), "x", tcc.Branch{Name: "seat", Action: "svc.seat"})
			tried <- err
		}()
		time.Sleep(time.Second)
		asked := time.Now()
		if _, err := r2.Commit(t.Context(), "x"); !errors.Is(err, amendsv1.ErrTryPending) || time.Since(asked) > time.Second {
			t.Errorf("commit: %v after %v, want ErrTryPending at once", err, time.Since(asked))
		}
		if _, err := r2.Abort(t.Context(), "x", "", "enough"); err != nil {
			t.Error(err)
		}
		<-tried
	})
}
