package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// asked counts what is read of single transactions.
type asked struct {
	store.Store
	loads atomic.Int64
}

func (a *asked) Load(ctx context.Context, gid string) (store.Record, error) {
	a.loads.Add(1)
	return a.Store.Load(ctx, gid)
}

// wantFull checks a refusal that says when to try again.
func wantFull(t *testing.T, err error) {
	t.Helper()
	var own *amendsv1.Error
	if !errors.As(err, &own) || !errors.Is(err, amendsv1.ErrOverloaded) || own.RetryAfter <= 0 {
		t.Errorf("%v, want ErrOverloaded with a delay", err)
	}
}

// TestDoor: where there is no room, a start is refused without asking the store,
// but a repeated one is told the truth, and what is known to no engine may come
// again later.
func TestDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &asked{Store: newStore()}
		r := launch(t, st, &Config{MaxLive: 2}, unless("dead", "gone"))
		r.startSaga("ended", steps(1))
		r.wait("ended")
		synctest.Wait()
		if r.Full("new") {
			t.Error("full while nothing is live")
		}
		r.startSaga("g1", steps(1, of("dead")))
		r.startSaga("g2", steps(1, of("gone")))
		before := st.loads.Load()
		if !r.Full("new") || r.Full("g1") {
			t.Errorf("full for what is new: %v, want true; for what is live: %v, want false", r.Full("new"), r.Full("g1"))
		}
		for _, gid := range []string{"new", "ended"} {
			_, _, err := r.StartSaga(t.Context(), gid, steps(1), nil)
			wantFull(t, err)
		}
		if n := st.loads.Load() - before; n != 0 {
			t.Errorf("refusals asked the store %d times", n)
		}
		rec, created, err := r.StartSaga(t.Context(), "g1", steps(1, of("dead")), nil)
		if err != nil || created || rec.GID != "g1" {
			t.Errorf("a repeated start: %q created %v, %v", rec.GID, created, err)
		}
		if r.Stats().Refused[refusedFull] == 0 {
			t.Error("refusals are not counted")
		}
	})
}

// TestCrowdedAtTheDoor: so is one whose service has its share.
func TestCrowdedAtTheDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &asked{Store: newStore()}
		r := launch(t, st, &Config{MaxLive: 8}, unless("dead"))
		if n, _ := fill(t, r, "dead"); n != 4 {
			t.Fatalf("%d sagas wait for the dead service, want half of 8", n)
		}
		before := st.loads.Load()
		_, _, err := r.StartSaga(t.Context(), "new", steps(2, of("dead")), nil)
		if wantFull(t, err); st.loads.Load() != before {
			t.Error("the refusal asked the store")
		}
		if _, created, err := r.StartSaga(t.Context(), "dead-0", steps(1, of("dead")), nil); err != nil || created {
			t.Errorf("a repeated start: created %v, %v", created, err)
		}
		r.startSaga("well", steps(1, of("well")))
	})
}

// TestStartsWaitOutside: while the store takes nothing, only so many starts are
// kept waiting; the others are refused at once, and those that were kept succeed.
func TestStartsWaitOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var shut atomic.Bool
		st := &faulty{Store: newStore(), commit: func(_ store.Batch, real func() error) error {
			if shut.Load() {
				<-gate
			}
			return real()
		}}
		r := launch(t, st, nil, ok)
		r.startSaga("first", steps(1))
		r.wait("first")
		synctest.Wait()
		shut.Store(true)
		const over = 100
		said := make(chan error, maxStarting+over)
		for i := range maxStarting + over {
			go func() {
				_, _, err := r.StartSaga(t.Context(), fmt.Sprint("g", i), steps(1), nil)
				said <- err
			}()
		}
		synctest.Wait()
		if n := len(said); n != over {
			t.Errorf("%d starts are refused while the store stands still, want %d", n, over)
		}
		for range len(said) {
			wantFull(t, <-said)
		}
		shut.Store(false)
		close(gate)
		synctest.Wait()
		for range len(said) {
			if err := <-said; err != nil {
				t.Errorf("a start that was let in: %v", err)
			}
		}
		if n := r.starting.Load(); n != 0 || r.Full("new") {
			t.Errorf("%d starts are left, full: %v", n, r.Full("new"))
		}
	})
}

// TestUnderWayIsStoredFirst: what came of calls goes into the next commit, however
// many starts have come before it.
func TestUnderWayIsStoredFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const old = 10
		gate, answers := make(chan struct{}), make(chan struct{})
		var shut atomic.Bool
		var commits []map[string]bool // what each has, once the gate is shut
		st := &faulty{Store: newStore(), commit: func(b store.Batch, real func() error) error {
			if shut.Load() && len(b.Writes) > 0 {
				gids := map[string]bool{}
				for _, w := range b.Writes {
					gids[w.Record.GID] = true
				}
				commits = append(commits, gids)
				<-gate
			}
			return real()
		}}
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if strings.HasPrefix(c.GID, "old") {
				<-answers
			}
			return ok(c)
		})
		for i := range old {
			r.startSaga(fmt.Sprint("old", i), steps(1))
		}
		synctest.Wait()
		shut.Store(true)
		done := make(chan error, 3*maxBatch)
		for i := range cap(done) {
			go func() {
				_, _, err := r.StartSaga(t.Context(), fmt.Sprint("new", i), steps(1), nil)
				done <- err
			}()
		}
		synctest.Wait()
		close(answers)
		synctest.Wait()
		close(gate)
		synctest.Wait()
		for range len(done) {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if len(commits) < 2 {
			t.Fatalf("%d commits", len(commits))
		}
		for i := range old {
			if gid := fmt.Sprint("old", i); !commits[1][gid] {
				t.Errorf("the end of %s is not in the next commit", gid)
			}
		}
		if len(commits[1]) != maxBatch {
			t.Errorf("the next commit has %d, want %d", len(commits[1]), maxBatch)
		}
	})
}

// TestStartsComeLast: a worker takes what is under way before what is new, and
// some of that all the same.
func TestStartsComeLast(t *testing.T) {
	r := launch(t, newStore(), nil, ok)
	w := newWorker(r.Engine)
	const n = 400
	var order []bool // whether it was a start
	for range n {
		w.starts <- func() { order = append(order, true) }
		w.inbox <- func() { order = append(order, false) }
	}
	w.burst()
	if len(order) != 2*n {
		t.Fatalf("%d of %d ran", len(order), 2*n)
	}
	starts := 0
	for _, start := range order[:n] {
		if start {
			starts++
		}
	}
	if starts != n/startEvery {
		t.Errorf("%d of the first %d were starts, want one in %d", starts, n, startEvery)
	}
}

// TestStartsWaitApart: starts that a worker has not come to stand in nobody's way.
func TestStartsWaitApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, ok)
		r.startSaga("first", steps(1))
		r.wait("first")
		w, busy, said := r.workers[0], make(chan struct{}), make(chan error, 5)
		if err := w.post(t.Context(), func() { <-busy }); err != nil {
			t.Fatal(err)
		}
		for i := range cap(said) {
			go func() {
				_, _, err := r.StartSaga(t.Context(), fmt.Sprint("g", i), steps(1), nil)
				said <- err
			}()
		}
		synctest.Wait()
		if len(w.starts) != cap(said) || len(w.inbox) != 0 {
			t.Errorf("%d starts wait apart and %d things in the inbox, want %d and none", len(w.starts), len(w.inbox), cap(said))
		}
		close(busy)
		for range cap(said) {
			if err := <-said; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestCallsOfNewOnes: a call says whether anything has come of its transaction.
func TestCallsOfNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if c.Name == "a" && c.Attempt == 1 {
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		r.startSaga("g", steps(2))
		r.wait("g")
		var got []string
		for _, c := range r.p.seen {
			got = append(got, fmt.Sprintf("%s%d:%v", c.Name, c.Attempt, c.New))
		}
		if s := strings.Join(got, " "); s != "a1:true a2:true b1:false" {
			t.Errorf("calls are %s", s)
		}
	})
}
