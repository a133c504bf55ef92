package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// faulty is a store that fails on demand, or can be cut off as a crash does.
type faulty struct {
	store.Store
	cut    atomic.Bool
	mute   atomic.Bool                                  // it is cut off from what is said about leases
	commit func(b store.Batch, real func() error) error // nil: the real one
}

func (f *faulty) Commit(ctx context.Context, b store.Batch) error {
	if f.cut.Load() {
		return store.ErrClosed
	}
	real := func() error { return f.Store.Commit(ctx, b) }
	if f.commit != nil {
		return f.commit(b, real)
	}
	return real()
}

// aboutLeases is the error of what is said about leases, or nil.
func (f *faulty) aboutLeases() error {
	switch {
	case f.cut.Load():
		return store.ErrClosed
	case f.mute.Load():
		return errLost
	}
	return nil
}

func (f *faulty) Join(ctx context.Context, m store.Member, ttl time.Duration) ([]store.Member, error) {
	if err := f.aboutLeases(); err != nil {
		return nil, err
	}
	return f.Store.Join(ctx, m, ttl)
}

func (f *faulty) Leases(ctx context.Context) ([]store.Holding, error) {
	if err := f.aboutLeases(); err != nil {
		return nil, err
	}
	return f.Store.Leases(ctx)
}

func (f *faulty) Renew(ctx context.Context, owner string, ttl time.Duration) ([]store.Lease, error) {
	if err := f.aboutLeases(); err != nil {
		return nil, err
	}
	return f.Store.Renew(ctx, owner, ttl)
}

func (f *faulty) Leave(ctx context.Context, name string) error {
	if f.cut.Load() {
		return store.ErrClosed
	}
	return f.Store.Leave(ctx, name)
}

// secede cuts an engine off and takes away what it has, as if its time had run
// out. It comes back when mute is false.
func (f *faulty) secede(t *testing.T, r *running) {
	t.Helper()
	f.mute.Store(true)
	if err := errors.Join(f.Store.Release(t.Context(), r.cfg.Owner), f.Store.Leave(t.Context(), r.cfg.Owner)); err != nil {
		t.Fatal(err)
	}
}

func (f *faulty) Release(ctx context.Context, owner string) error {
	if f.cut.Load() {
		return store.ErrClosed
	}
	return f.Store.Release(ctx, owner)
}

func TestCrashIsRecovered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		r1 := launch(t, first, nil, func(c dispatch.Call) txn.Replied {
			if c.Name == "b" {
				return txn.Replied{} // hangs
			}
			return ok(c)
		})
		const n = 50
		for i := range n {
			r1.startSaga(fmt.Sprintf("g%d", i), steps(3))
		}
		synctest.Wait()
		first.cut.Store(true)
		if err := r1.end(); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Fatal(err)
		}
		began := time.Now()
		r2 := launch(t, st, nil, ok)
		for i := range n {
			gid := fmt.Sprintf("g%d", i)
			if got := r2.wait(gid); got != txn.Committed {
				t.Fatalf("%s is %v, want COMMITTED", gid, got)
			}
			checkTrail(t, st, gid)
		}
		if d := time.Since(began); d > 14*time.Second {
			t.Errorf("recovered after %v, want the lease time and little more", d)
		}
		if n := r2.p.calls(txn.Do); n != 100 {
			t.Errorf("%d calls after the crash, want b and c of 50 sagas", n)
		}
	})
}

// TestExecutedButReplyLost commits and then reports an error, at random.
func TestExecutedButReplyLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(1, 2))
		var mu sync.Mutex
		st := &faulty{Store: newStore()}
		st.commit = func(_ store.Batch, real func() error) error {
			mu.Lock()
			before, after := rnd.Float64() < 0.2, rnd.Float64() < 0.2
			mu.Unlock()
			if before {
				return errors.New("connection refused")
			}
			if err := real(); err != nil || !after {
				return err
			}
			return errors.New("connection lost")
		}
		r := launch(t, st, nil, ok)
		for i := range 100 {
			r.startSaga(fmt.Sprintf("g%d", i), steps(3))
		}
		for i := range 100 {
			gid := fmt.Sprintf("g%d", i)
			if got := r.wait(gid); got != txn.Committed {
				t.Fatalf("%s is %v, want COMMITTED", gid, got)
			}
			if evs := checkTrail(t, st, gid); len(evs) != 4 {
				t.Fatalf("%s has %d events, want 4: %v", gid, len(evs), evs)
			}
		}
	})
}

// TestPoisonDoesNotBlockNeighbours has the store refuse one transaction.
func TestPoisonDoesNotBlockNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faulty{Store: newStore()}
		st.commit = func(b store.Batch, real func() error) error {
			for _, w := range b.Writes {
				if w.Record.GID == "poison" && w.Record.Version > 1 {
					return errors.New("data too long for column")
				}
			}
			return real()
		}
		r := launch(t, st, &Config{Workers: 1}, ok)
		r.startSaga("poison", steps(1))
		for i := range 20 {
			r.startSaga(fmt.Sprintf("g%d", i), steps(2))
		}
		for i := range 20 {
			if got := r.wait(fmt.Sprintf("g%d", i)); got != txn.Committed {
				t.Fatalf("a neighbour is %v", got)
			}
		}
	})
}

// TestFencing lets a second engine take the shards while the first still
// believes that it owns them: the first must not write, nor tell anybody that
// something was done.
func TestFencing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore()
		st := &faulty{Store: mem}
		stuck := make(chan struct{})
		var slow atomic.Bool
		st.commit = func(_ store.Batch, real func() error) error {
			if slow.Load() {
				<-stuck // a pause in mid-commit, as SIGSTOP makes one
			}
			return real()
		}
		r1 := launch(t, st, nil, ok)
		r1.startSaga("before", steps(1))
		r1.wait("before")

		slow.Store(true)
		lost := make(chan error, 1)
		go func() {
			_, _, err := r1.StartSaga(context.Background(), "during", steps(1), nil)
			lost <- err
		}()
		synctest.Wait()
		st.secede(t, r1)
		r2 := launch(t, mem, nil, ok)
		r2.startSaga("elsewhere", steps(1))
		slow.Store(false)
		close(stuck)
		if err := <-lost; !errors.Is(err, errElsewhere) {
			t.Errorf("start on a stale lease: %v, want that the shard is elsewhere", err)
		}
		if _, err := mem.Load(t.Context(), "during"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a stale owner wrote: %v", err)
		}
		if n := r1.p.calls(txn.Do); n != 1 {
			t.Errorf("the stale owner sent %d calls, want the one from before", n)
		}
		r2.wait("elsewhere")
	})
}

func TestDrainLeavesNothingUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			time.Sleep(100 * time.Millisecond) // virtual
			return ok(c)
		})
		for i := range 20 {
			r.startSaga(fmt.Sprintf("g%d", i), steps(4))
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		sent := r.p.calls(txn.Do)
		if _, _, err := r.StartSaga(t.Context(), "late", steps(1), nil); err == nil || !strings.Contains(err.Error(), "stopping") {
			t.Errorf("start while stopping: %v", err)
		}
		r2 := launch(t, st, nil, ok)
		for i := range 20 {
			if got := r2.wait(fmt.Sprintf("g%d", i)); got != txn.Committed {
				t.Fatalf("state %v", got)
			}
		}
		if total := sent + r2.p.calls(txn.Do); total != 80 {
			t.Errorf("%d calls for 80 steps: an outcome was lost in the drain", total)
		}
	})
}

// TestAskedDuringCommit asks for what is already decided while the decision is
// being committed: the answer must come with that commit.
func TestAskedDuringCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faulty{Store: newStore()}
		st.commit = func(_ store.Batch, real func() error) error {
			time.Sleep(time.Second) // virtual
			return real()
		}
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do {
				return txn.Replied{Outcome: txn.Refused}
			}
			return ok(c)
		})
		r.startSaga("g1", steps(1))
		synctest.Wait() // the refusal is being committed
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := r.Abort(ctx, "g1", "me", "never mind"); err != nil {
			t.Errorf("abort of what is turning back already: %v", err)
		}
		if got := r.wait("g1"); got != txn.RolledBack {
			t.Errorf("state %v, want ROLLED_BACK", got)
		}
	})
}

// TestGroupCommit counts commits under concurrent starts: they must share.
func TestGroupCommit(t *testing.T) {
	var commits, writes atomic.Int64
	st := &faulty{Store: newStore()}
	st.commit = func(b store.Batch, real func() error) error {
		commits.Add(1)
		writes.Add(int64(len(b.Writes)))
		time.Sleep(time.Millisecond) // what a disk takes
		return real()
	}
	r := launch(t, st, nil, ok)
	r.startSaga("first", steps(1))
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 10 {
				gid := fmt.Sprintf("g%d-%d", i, j)
				r.startSaga(gid, steps(2))
				r.wait(gid)
			}
		})
	}
	wg.Wait()
	if per := float64(writes.Load()) / float64(commits.Load()); per < 4 {
		t.Errorf("%.1f writes a commit with 64 clients, want many", per)
	}
	if n := writes.Load(); n > 641*3 {
		t.Errorf("%d rows written for 641 two-step sagas, want at most one a transition", n)
	}
}
