package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestRecoveryIsNotStarved: whoever takes over more than MaxLive (two
// coordinators, each full, one of them dies) must still drive all of it. What
// waits for a service that is away must not shut out the rest, nor deadlines.
func TestRecoveryIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		r1 := launch(t, first, &Config{MaxLive: 60}, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		for i := range 20 {
			r1.startSaga(fmt.Sprintf("away%d", i), steps(1))
		}
		time.Sleep(time.Second)
		r1.startSaga("healthy", steps(1, func(d *saga.Definition) { d.Steps[0].Action = "up.a" }))
		r1.startSaga("late", steps(1, func(d *saga.Definition) { d.Timeout = time.Minute }))
		synctest.Wait()
		first.cut.Store(true)
		_ = r1.end()

		r2 := launch(t, st, &Config{MaxLive: 20, Workers: 1}, func(c dispatch.Call) txn.Replied {
			if c.Action == "up.a" || c.Op == txn.Undo {
				return ok(c)
			}
			return txn.Replied{} // no participant: waits in the hub for ever
		})
		for gid, want := range map[string]txn.State{"healthy": txn.Committed, "late": txn.RolledBack} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // virtual
			rec, err := r2.Wait(ctx, gid)
			cancel()
			if err != nil || txn.State(rec.State) != want {
				t.Errorf("%s after an hour: %v (%v), want %v: %d live", gid, txn.State(rec.State), err, want, r2.Live())
			}
		}
	})
}

// TestLostShardsWithdraw: what a coordinator no longer owns, it no longer asks for.
func TestLostShardsWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, ok)
		a := &away{}
		r.SetDispatcher(a) // nothing was sent yet
		r.startSaga("g1", steps(1))
		synctest.Wait()
		if err := st.Release(t.Context(), r.cfg.Owner); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Acquire(t.Context(), "other", time.Hour, 1000); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r.Live() != 0 {
			t.Fatalf("%d live after the shards were lost", r.Live())
		}
		if calls := a.deliver(); len(calls) != 0 {
			t.Errorf("%d calls of transactions that others own still wait for a participant", len(calls))
		}
	})
}

// TestOneAnswerRecallsNoOther: an answer to one undo takes nothing else out of
// the queue, where it would lose its place.
func TestOneAnswerRecallsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, ok)
		a := &away{}
		r.SetDispatcher(a)
		wide := &saga.Definition{Name: "wide", Steps: []saga.Step{
			{Name: "a", Action: "svc.a"}, {Name: "b", Action: "svc.b"}, {Name: "c", Action: "svc.c"},
		}}
		r.startSaga("g1", wide)
		if _, err := r.Abort(t.Context(), "g1", "me", "no"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.mu.Lock()
		undo := a.waiting[0]
		a.waiting = a.waiting[1:] // b and c still wait, in front of
		a.waiting = append(a.waiting, dispatch.Call{GID: "other"})
		a.mu.Unlock()
		r.Outcome(dispatch.Outcome{GID: "g1", Replied: txn.Replied{Branch: undo.Branch, Op: undo.Op, Attempt: undo.Attempt, Outcome: txn.OK}})
		synctest.Wait()
		if rest := a.deliver(); len(rest) != 3 || rest[2].GID != "other" {
			t.Errorf("queue %v: the undos of b and c went behind what came later", gidsOf(rest))
		}
	})
}

func gidsOf(calls []dispatch.Call) (gids []string) {
	for _, c := range calls {
		gids = append(gids, c.GID)
	}
	return gids
}

// TestExpiredIsNotDone: what comes back from the store past its deadline turns
// back; none of its steps are done first.
func TestExpiredIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		r1 := launch(t, first, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		for i := range 50 {
			r1.startSaga(fmt.Sprintf("g%d", i), steps(1, func(d *saga.Definition) { d.Timeout = time.Minute }))
		}
		synctest.Wait()
		first.cut.Store(true)
		_ = r1.end()
		time.Sleep(time.Hour) // nobody is there
		r2 := launch(t, st, nil, ok)
		for i := range 50 {
			if got := r2.wait(fmt.Sprintf("g%d", i)); got != txn.RolledBack {
				t.Errorf("g%d is %v, want ROLLED_BACK", i, got)
			}
		}
		if n := r2.p.calls(txn.Do); n != 0 {
			t.Errorf("%d steps were done an hour after their transactions' deadline", n)
		}
	})
}

// counted counts loads.
type counted struct {
	store.Store
	loads atomic.Int64
}

func (c *counted) Load(ctx context.Context, gid string) (store.Record, error) {
	c.loads.Add(1)
	time.Sleep(time.Millisecond) // what a database takes
	return c.Store.Load(ctx, gid)
}

// TestManyAskOneThatEnded: N repeats of a commit cost about N loads, not N².
func TestManyAskOneThatEnded(t *testing.T) {
	st := &counted{Store: newStore()}
	r := launch(t, st, nil, ok)
	r.startSaga("warm-up", steps(1))
	if _, _, err := r.BeginTCC(t.Context(), "x", &tcc.Definition{Name: "trip", Timeout: time.Minute}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	r.wait("x")
	before := st.loads.Load()
	const n = 512
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := r.Commit(t.Context(), "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if loads := st.loads.Load() - before; loads > 4*n {
		t.Errorf("%d loads for %d commits of a transaction that ended long ago", loads, n)
	}
}

// TestRepeatedAbortOfParked: an abort that was heard is confirmed when it is
// repeated, also when an undo has parked the transaction meanwhile.
func TestRepeatedAbortOfParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Cancel {
				return txn.Replied{Outcome: txn.Refused, Message: "cannot"}
			}
			return ok(c)
		})
		r.startSaga("warm-up", steps(1))
		if _, _, err := r.BeginTCC(t.Context(), "x", &tcc.Definition{Name: "trip", Timeout: time.Minute}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Try(t.Context(), "x", tcc.Branch{Name: "seat", Action: "flights.seat"}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Abort(t.Context(), "x", "me", "no"); err != nil {
			t.Fatal(err)
		}
		if got := r.wait("x"); got != txn.Parked {
			t.Fatalf("state %v, want PARKED", got)
		}
		if _, err := r.Abort(t.Context(), "x", "me", "no"); err != nil {
			t.Errorf("the same abort again: %v", err)
		}
	})
}

// TestPlainConflictIsNoSuccess: a conflict that names no shards is a conflict.
func TestPlainConflictIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faulty{Store: newStore()}
		var fail atomic.Bool
		st.commit = func(_ store.Batch, real func() error) error {
			if fail.Load() {
				return fmt.Errorf("mystore: %w", store.ErrConflict)
			}
			return real()
		}
		r := launch(t, st, nil, ok)
		r.startSaga("before", steps(1))
		r.wait("before")
		fail.Store(true)
		_, _, err := r.StartSaga(t.Context(), "g1", steps(1), nil)
		synctest.Wait()
		if n := r.p.calls(txn.Do); err == nil || n != 1 {
			t.Errorf("start acknowledged (err %v) with %d calls, and nothing was written", err, n)
		}
	})
}

// TestDrainIsFairToWorkers: a call that nobody takes must not cost the other
// workers their drain.
func TestDrainIsFairToWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, &Config{Workers: 2, DrainTimeout: 5 * time.Second}, func(c dispatch.Call) txn.Replied {
			if c.Action == "away.a" {
				return txn.Replied{}
			}
			time.Sleep(100 * time.Millisecond)
			return ok(c)
		})
		r.startSaga("warm-up", steps(1))
		hang := "away"
		for i := 0; r.shardOf(hang)%2 != 0; i++ {
			hang = fmt.Sprintf("away%d", i)
		}
		busy := "busy"
		for i := 0; r.shardOf(busy)%2 != 1; i++ {
			busy = fmt.Sprintf("busy%d", i)
		}
		r.startSaga(hang, steps(1, func(d *saga.Definition) { d.Steps[0].Action = "away.a" }))
		long := &saga.Definition{Name: "long"}
		for i := range 200 {
			s := saga.Step{Name: fmt.Sprintf("s%d", i), Action: "svc.s"}
			if i > 0 {
				s.After = []int{i - 1}
			}
			long.Steps = append(long.Steps, s)
		}
		r.startSaga(busy, long)
		time.Sleep(50 * time.Millisecond)
		before := r.p.calls(txn.Do)
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		if n := r.p.calls(txn.Do) - before; n > 1 {
			t.Errorf("%d calls went out during the drain, want none (or the one under way)", n)
		}
	})
}

// TestManyLostAtOnce: changes of shards that were kept are committed at once,
// however many changes of lost shards stand before them.
func TestManyLostAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		var hold atomic.Pointer[chan struct{}]
		f := &faulty{Store: st}
		f.commit = func(_ store.Batch, real func() error) error {
			if ch := hold.Load(); ch != nil {
				<-*ch
			}
			return real()
		}
		r := launch(t, f, &Config{Workers: 1, SweepInterval: time.Hour, LeaseTTL: 4 * time.Hour}, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		r.startSaga("first", steps(1))
		lostShard := r.shardOf("first")
		ch := make(chan struct{})
		hold.Store(&ch)
		var wg sync.WaitGroup
		start := func(gid string) {
			wg.Go(func() { _, _, _ = r.StartSaga(context.Background(), gid, steps(1), nil) })
			synctest.Wait()
		}
		start("blocker")
		n := 0
		for i := 0; n < maxBatch; i++ { // fill one batch with the shard that will be lost
			gid := fmt.Sprintf("g%d", i)
			if r.shardOf(gid) != lostShard {
				continue
			}
			n++
			start(gid)
		}
		kept := "kept"
		done := make(chan error, 1)
		go func() {
			_, _, err := r.StartSaga(context.Background(), kept, steps(1), nil)
			done <- err
		}()
		synctest.Wait()
		// the shard goes to another: the blocker's commit is in flight, our own lease loop tells the worker
		w := r.workers[0]
		if err := w.post(t.Context(), func() { w.drop(map[int]bool{lostShard: true}) }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		hold.Store(nil)
		close(ch)
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			began := time.Now()
			<-done
			t.Errorf("a start on a kept shard was stuck for %v", time.Since(began))
		}
		wg.Wait()
	})
}
