package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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

// slowLoad holds up one Load after it has read, so that what was read is old
// by the time it is used; and it can refuse renewals.
type slowLoad struct {
	store.Store
	next    atomic.Pointer[chan struct{}]
	noRenew atomic.Bool
}

func (s *slowLoad) Load(ctx context.Context, gid string) (store.Record, error) {
	rec, err := s.Store.Load(ctx, gid)
	if hold := s.next.Swap(nil); hold != nil {
		<-*hold
	}
	return rec, err
}

func (s *slowLoad) Renew(ctx context.Context, owner string, ttl time.Duration) ([]store.Lease, error) {
	if s.noRenew.Load() {
		return nil, errors.New("no route to the database")
	}
	return s.Store.Renew(ctx, owner, ttl)
}

func (s *slowLoad) hold() chan struct{} {
	ch := make(chan struct{})
	s.next.Store(&ch)
	return ch
}

func begin(t *testing.T, r *running, gid string, timeout time.Duration) {
	t.Helper()
	if _, _, err := r.BeginTCC(t.Context(), gid, &tcc.Definition{Name: "trip", Timeout: timeout}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestNothingLeavesBeforeItIsDurable holds every commit after the first and
// looks at what got out. Kills: act-before-durable, try-answer-before-durable.
func TestNothingLeavesBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faulty{Store: newStore()}
		held := make(chan struct{})
		st.commit = func(b store.Batch, real func() error) error {
			for _, w := range b.Writes {
				if w.Record.GID == "s" && w.Record.Version > 1 || w.Record.GID == "x" && w.Record.Version > 2 {
					<-held
				}
			}
			return real()
		}
		r := launch(t, st, &Config{Workers: 8}, ok)
		r.startSaga("s", steps(2))
		begin(t, r, "x", time.Minute)
		answered := make(chan error, 2)
		seat := tcc.Branch{Name: "seat", Action: "flights.seat"}
		for range 2 { // the second asks while the first one's answer is being committed
			go func() { _, err := r.Try(t.Context(), "x", seat); answered <- err }()
			synctest.Wait()
		}
		if n := r.p.calls(txn.Do); n != 1 {
			t.Errorf("%d steps were called while the first one's outcome was not durable, want 1", n)
		}
		if len(answered) != 0 {
			t.Error("a try was answered before its answer was durable")
		}
		close(held)
		if err := errors.Join(<-answered, <-answered); err != nil || r.wait("s") != txn.Committed {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestSleeperKeepsItsTime: coming back from the store does not shorten a
// backoff. Kills: fresh-ignores-nextat.
func TestSleeperKeepsItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries atomic.Int32
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if tries.Add(1) == 1 {
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		r.startSaga("g1", steps(1, func(d *saga.Definition) {
			d.Steps[0].Retry = txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}
		}))
		time.Sleep(55 * time.Minute)
		r.wait("g1")
		if d := time.Since(began); d < time.Hour || d > time.Hour+3*time.Second {
			t.Errorf("tried again after %v, want 1 h", d)
		}
	})
}

// TestDeadlineWakesSleeper. Kills: nextat-ignores-deadline.
func TestDeadlineWakesSleeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do {
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		r.startSaga("g1", steps(1, func(d *saga.Definition) {
			d.Timeout = 10 * time.Minute
			d.Steps[0].Retry = txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}
		}))
		time.Sleep(9 * time.Minute) // virtual
		if got := r.wait("g1"); got != txn.RolledBack {
			t.Errorf("state %v, want ROLLED_BACK", got)
		}
		if d := time.Since(began); d > 10*time.Minute+3*time.Second {
			t.Errorf("its deadline of 10 min was dealt with after %v", d)
		}
	})
}

// TestCallUnderWayIsDueAtOnce crashes while one branch is under way and the
// other sleeps. Kills: nextat-ignores-sent.
func TestCallUnderWayIsDueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		two := &saga.Definition{Name: "two", Steps: []saga.Step{
			{Name: "a", Action: "svc.a"},
			{Name: "b", Action: "svc.b", Retry: txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}},
		}}
		r1 := launch(t, first, nil, func(c dispatch.Call) txn.Replied {
			if c.Name == "a" {
				return txn.Replied{}
			}
			time.Sleep(time.Second)
			return txn.Replied{Outcome: txn.Unknown}
		})
		r1.startSaga("g1", two)
		time.Sleep(2 * time.Second)
		first.cut.Store(true)
		_ = r1.end()
		began := time.Now()
		r2 := launch(t, st, nil, ok)
		for r2.p.calls(txn.Do) == 0 && time.Since(began) < 2*time.Hour {
			time.Sleep(time.Second)
		}
		if d := time.Since(began); d > 15*time.Second {
			t.Errorf("the call under way was asked again %v after the crash", d)
		}
		r2.wait("g1")
	})
}

// TestSameStartWhileItIsLost: both who wait for one start hear that it is
// lost. Kills: drop-hooks-giveup.
func TestSameStartWhileItIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore()
		st := &faulty{Store: mem}
		r := launch(t, st, nil, ok)
		r.startSaga("before", steps(1))
		r.wait("before")
		held := make(chan struct{})
		st.commit = func(_ store.Batch, real func() error) error { <-held; return real() }
		lost := make(chan error, 2)
		for range 2 {
			go func() { _, _, err := r.StartSaga(context.Background(), "g1", steps(1), nil); lost <- err }()
			synctest.Wait()
		}
		if err := mem.Release(t.Context(), r.cfg.Owner); err != nil {
			t.Fatal(err)
		}
		if _, err := mem.Acquire(t.Context(), "other", time.Hour, 1000); err != nil {
			t.Fatal(err)
		}
		close(held)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(lost) != 2 {
			t.Fatalf("%d of 2 callers have an answer", len(lost))
		}
		for range 2 {
			if err := <-lost; !errors.Is(err, errElsewhere) {
				t.Errorf("%v, want that the shard is elsewhere", err)
			}
		}
	})
}

// TestStaleReadIsNotUsed lets a transaction end between a command's read and
// its use. Kills: no-departures-load.
func TestStaleReadIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowLoad{Store: newStore()}
		r := launch(t, st, nil, ok)
		r.startSaga("warm-up", steps(1))
		begin(t, r, "x", time.Hour) // sleeps: not in memory
		synctest.Wait()
		hold := st.hold()
		late := make(chan error, 1)
		go func() { _, err := r.Commit(t.Context(), "x"); late <- err }()
		synctest.Wait()
		if _, err := r.Abort(t.Context(), "x", "me", "no"); err != nil {
			t.Fatal(err)
		}
		r.wait("x")
		close(hold)
		if err := <-late; !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("commit after the abort: %v, want ErrDecided", err)
		}
	})
}

// TestStaleNotFoundIsNotUsed: the same for a start that read "not found".
// Kills: no-departures-start.
func TestStaleNotFoundIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowLoad{Store: newStore()}
		r := launch(t, st, nil, ok)
		r.startSaga("warm-up", steps(1))
		hold := st.hold()
		second := make(chan bool, 1)
		go func() { _, created, _ := r.StartSaga(t.Context(), "g1", steps(1), nil); second <- created }()
		synctest.Wait()
		r.startSaga("g1", steps(1))
		r.wait("g1")
		close(hold)
		if created := <-second; created || r.p.calls(txn.Do) != 2 {
			t.Errorf("created twice: %v, %d calls, want 2", created, r.p.calls(txn.Do))
		}
	})
}

// TestReadBeforeAnotherOwnedIt: between the read and its use, another
// coordinator owned the shard and ran the transaction. Kills: no-since.
func TestReadBeforeAnotherOwnedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore()
		st := &slowLoad{Store: mem}
		r1 := launch(t, st, nil, ok)
		r1.startSaga("warm-up", steps(1))
		r1.wait("warm-up")
		hold := st.hold()
		late := make(chan bool, 1)
		go func() { _, created, _ := r1.StartSaga(t.Context(), "g1", steps(1), nil); late <- created }()
		synctest.Wait()
		if err := mem.Release(t.Context(), r1.cfg.Owner); err != nil {
			t.Fatal(err)
		}
		r2 := launch(t, mem, nil, ok)
		r2.startSaga("g1", steps(1))
		r2.wait("g1")
		if err := r2.end(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // r1 takes the shards back
		close(hold)
		if created := <-late; created || r1.p.calls(txn.Do) != 1 {
			t.Errorf("a transaction that ended elsewhere was created again (%v), %d calls here", created, r1.p.calls(txn.Do))
		}
	})
}

// TestManyDueAfterCrash: recovery goes beyond a page, and within its bound.
// Kills: sweep-first-page-only, sweep-room-ignored, sweep-full-says-done.
func TestManyDueAfterCrash(t *testing.T) {
	for _, c := range []struct{ n, maxLive int }{{2*sweepPage + 100, 0}, {200, 10}} {
		t.Run(fmt.Sprint(c.n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newStore()
				first := &faulty{Store: st}
				r1 := launch(t, first, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
				r1.startSaga("warm-up", steps(1))
				var wg sync.WaitGroup
				for i := range c.n {
					wg.Go(func() { _, _, _ = r1.StartSaga(t.Context(), fmt.Sprintf("g%d", i), steps(1), nil) })
					if i%sweepPage == 0 {
						wg.Wait() // no more at once than may wait to be stored
					}
				}
				wg.Wait()
				first.cut.Store(true)
				_ = r1.end()
				if err := st.Release(t.Context(), r1.cfg.Owner); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				var most atomic.Int64
				var r2 *running
				launched := make(chan struct{})
				r2 = launch(t, st, &Config{Workers: 1, MaxLive: c.maxLive}, func(call dispatch.Call) txn.Replied {
					<-launched
					time.Sleep(100 * time.Millisecond) // virtual
					most.Store(max(most.Load(), int64(r2.Live())))
					return ok(call)
				})
				close(launched)
				for i := range c.n {
					r2.wait(fmt.Sprintf("g%d", i))
				}
				if d := time.Since(began); d > 25*time.Second {
					t.Errorf("%d transactions recovered in %v", c.n, d)
				}
				if c.maxLive > 0 && most.Load() > int64(owedFactor*c.maxLive) {
					t.Errorf("%d in memory with a limit of %d", most.Load(), owedFactor*c.maxLive)
				}
			})
		})
	}
}

// TestCommitPastTheDeadline of a transaction that no sweep has found yet.
// Kills: ignore-deadline-commit.
func TestCommitPastTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{SweepInterval: 24 * time.Hour}, ok)
		r.startSaga("warm-up", steps(1))
		begin(t, r, "x", time.Hour)
		time.Sleep(time.Hour)
		if _, err := r.Commit(t.Context(), "x"); !errors.Is(err, amendsv1.ErrDeadlinePassed) {
			t.Errorf("commit at the deadline: %v, want ErrDeadlinePassed", err)
		}
	})
}

// TestNothingIsSentOnALeaseThatRanOut. Kills: ignore-validity.
func TestNothingIsSentOnALeaseThatRanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowLoad{Store: newStore()}
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Name == "a" {
				time.Sleep(15 * time.Second) // longer than the lease
			}
			return ok(c)
		})
		r.startSaga("g1", steps(2))
		st.noRenew.Store(true)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := r.p.calls(txn.Do); n != 1 {
			t.Errorf("%d calls, the second on a lease that had run out", n)
		}
		st.noRenew.Store(false)
		if got := r.wait("g1"); got != txn.Committed {
			t.Errorf("state %v, want COMMITTED", got)
		}
	})
}

// TestRetention: what has ended is kept for its time and not longer. Kills:
// no-purge, purge-too-early.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{Retention: time.Hour}, ok)
		r.startSaga("g1", steps(1))
		r.wait("g1")
		time.Sleep(59 * time.Minute)
		if _, err := r.Get(t.Context(), "g1"); err != nil {
			t.Errorf("within its retention: %v", err)
		}
		time.Sleep(3 * time.Minute)
		if _, err := r.Get(t.Context(), "g1"); !errors.Is(err, amendsv1.ErrNotFound) {
			t.Errorf("after its retention: %v, want ErrNotFound", err)
		}
	})
}
