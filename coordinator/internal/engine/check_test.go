package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// beginChecked begins a two-phase message and prepares it.
func beginChecked(t *testing.T, r *running, gid, service string) {
	t.Helper()
	d := &tcc.Definition{Name: "message", Timeout: time.Minute, Check: tcc.CheckBack{Action: service + ".check"}}
	for {
		_, _, err := r.BeginTCC(t.Context(), gid, d, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, errElsewhere) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := r.Try(t.Context(), gid, tcc.Branch{Name: "message", Action: "courier.publish"}); err != nil {
		t.Fatal(err)
	}
}

// TestUnknownIsCheckedForEver: for a day nobody knows, and the coordinator is
// replaced meanwhile. The transaction is stalled and found by its service, and
// never cancelled.
func TestUnknownIsCheckedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		var known atomic.Bool
		var asked atomic.Int32
		answer := func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Check {
				asked.Add(1)
				if !known.Load() {
					return txn.Replied{Outcome: txn.Unknown, Message: "who knows"}
				}
			}
			return ok(c)
		}
		seldom := Config{SweepInterval: time.Minute, LeaseTTL: 10 * time.Minute} // or it takes long
		r := launch(t, st, &seldom, answer)
		beginChecked(t, r, "g", "orders")
		time.Sleep(59 * time.Second)
		if n := asked.Load(); n != 0 {
			t.Errorf("asked %d times before the deadline", n)
		}
		time.Sleep(12 * time.Hour)
		r.end()
		r = launch(t, st.Reopen(), &seldom, answer)
		time.Sleep(12 * time.Hour)
		rec, err := st.Load(t.Context(), "g")
		if err != nil || txn.State(rec.State) != txn.Running || !rec.Stalled || rec.WaitsFor != "orders" {
			t.Errorf("after a day: %v, stalled %v, waits for %q, %v", txn.State(rec.State), rec.Stalled, rec.WaitsFor, err)
		}
		if n := asked.Load(); n < 24*60*5/6 || n > 24*60*6/5+30 { // once a minute, give or take the jitter
			t.Errorf("asked %d times in 24 h", n)
		}
		known.Store(true)
		if got := r.wait("g"); got != txn.Committed {
			t.Errorf("%v, want COMMITTED", got)
		}
		if got := trailOf(t, st, "g"); !strings.HasPrefix(got, "started try replied expire replied") {
			t.Errorf("trail %.80s", got)
		}
		checkTrailPages(t, r, "g")
	})
}

// checkTrailPages sees that a long trail says once that it was stalled.
func checkTrailPages(t *testing.T, r *running, gid string) {
	t.Helper()
	stalls, after := 0, int64(0)
	for {
		evs, err := r.store.Events(t.Context(), gid, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(evs) == 0 {
			break
		}
		for _, ev := range evs {
			after = ev.Seq
			if ev.Type == "stalled" {
				stalls++
			}
		}
	}
	if stalls != 1 {
		t.Errorf("stalled %d times", stalls)
	}
}

// TestWhoeverDecidesFirst: the sender's late word and the check's answer race;
// the first one stands, and the other one is told so.
func TestWhoeverDecidesFirst(t *testing.T) {
	for name, c := range map[string]struct {
		checked txn.Outcome
		decide  func(ctx context.Context, r *running) error
		first   bool // the sender speaks while the check is under way
		want    txn.State
		told    error
	}{
		"commit before a refusal": {txn.Refused, commitIt, true, txn.Committed, nil},
		"abort before an OK":      {txn.OK, abortIt, true, txn.RolledBack, nil},
		"commit after a refusal":  {txn.Refused, commitIt, false, txn.RolledBack, amendsv1.ErrDeadlinePassed},
		"abort after an OK":       {txn.OK, abortIt, false, txn.Committed, amendsv1.ErrDecided},
		"commit after an OK":      {txn.OK, commitIt, false, txn.Committed, nil},
		"abort after a refusal":   {txn.Refused, abortIt, false, txn.RolledBack, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := launch(t, newStore(), nil, func(call dispatch.Call) txn.Replied {
					if call.Op == txn.Check {
						time.Sleep(5 * time.Second)
						return txn.Replied{Outcome: c.checked}
					}
					return ok(call)
				})
				beginChecked(t, r, "g", "orders")
				wait := 62 * time.Second // under way
				if !c.first {
					wait = 70 * time.Second
				}
				time.Sleep(wait)
				if err := c.decide(t.Context(), r); !errors.Is(err, c.told) {
					t.Errorf("told %v, want %v", err, c.told)
				}
				time.Sleep(time.Minute)
				if got := r.wait("g"); got != c.want {
					t.Errorf("%v, want %v", got, c.want)
				}
				if _, err := r.Try(t.Context(), "g", tcc.Branch{Name: "late", Action: "s.a"}); err == nil {
					t.Error("a branch came too late and was taken")
				}
			})
		})
	}
}

func commitIt(ctx context.Context, r *running) error { _, err := r.Commit(ctx, "g"); return err }

func abortIt(ctx context.Context, r *running) error {
	_, err := r.Abort(ctx, "g", "", "no")
	return err
}

// TestNoBranchWhileItIsChecked: a try after the deadline is told so.
func TestNoBranchWhileItIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Check {
				return txn.Replied{}
			}
			return ok(c)
		})
		beginChecked(t, r, "g", "orders")
		time.Sleep(2 * time.Minute)
		for _, name := range []string{"message", "other"} {
			_, err := r.Try(t.Context(), "g", tcc.Branch{Name: name, Action: "courier.publish"})
			if !errors.Is(err, amendsv1.ErrDeadlinePassed) {
				t.Errorf("try %s: %v", name, err)
			}
		}
	})
}

// TestOperatorsOfAMessage: pause holds the check back, retry asks now, and a
// person's word answers it.
func TestOperatorsOfAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		var asked atomic.Int32
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Check {
				asked.Add(1)
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		beginChecked(t, r, "g", "orders")
		act := func(v amendsv1.Verb) error {
			_, err := r.Act(t.Context(), Command{Verb: v, GID: "g", Reason: "r", Actor: "op"})
			return err
		}
		if err := act(complete); !errors.Is(err, amendsv1.ErrIllegalVerb) {
			t.Errorf("complete before it is checked: %v", err)
		}
		if err := act(pauseIt); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if n := asked.Load(); n != 0 {
			t.Errorf("asked %d times while it is paused", n)
		}
		if err := act(resume); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		n := asked.Load()
		if n == 0 {
			t.Error("never asked")
		}
		if err := act(retry); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := asked.Load(); got != n+1 {
			t.Errorf("asked %d times at once, want once", got-n)
		}
		if err := act(complete); err != nil {
			t.Fatal(err)
		}
		if got := r.wait("g"); got != txn.Committed {
			t.Errorf("%v, want COMMITTED", got)
		}
		if got := trailOf(t, st, "g"); !strings.Contains(got, "pause resume expire replied") || !strings.HasSuffix(got, "complete replied") {
			t.Errorf("trail %s", got)
		}
	})
}

// TestChecksHoldUpNobody: 50 messages of a service that is away are checked while
// 200 others run their course. Not one of those takes longer for it.
func TestChecksHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{MaxLive: 200}, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Check {
				time.Sleep(c.Retry.WithDefaults().CallTimeout) // nobody answers
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		for i := range 50 {
			beginChecked(t, r, fmt.Sprintf("stuck%d", i), "away")
		}
		time.Sleep(10 * time.Minute)
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				gid, began := fmt.Sprintf("g%d", i), time.Now()
				beginChecked(t, r, gid, "orders")
				if _, err := r.Commit(t.Context(), gid); err != nil {
					t.Errorf("%s: %v", gid, err)
				}
				if got := r.wait(gid); got != txn.Committed || time.Since(began) > 10*time.Millisecond {
					t.Errorf("%s: %v after %v", gid, got, time.Since(began))
				}
			})
		}
		all.Wait()
	})
}
