package engine

import (
	"context"
	"errors"
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

// TestOneShardOfABatchIsLost: the rest of the batch is committed, and
// acknowledged only then. Kills: conflict-rest-dropped, conflict-rest-concluded.
func TestOneShardOfABatchIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore()
		st := &faulty{Store: mem}
		r := launch(t, st, &Config{Workers: 1}, ok)
		r.startSaga("before", steps(1))
		r.wait("before")
		first, second := make(chan struct{}), make(chan struct{})
		var commits atomic.Int32
		st.commit = func(_ store.Batch, real func() error) error {
			switch commits.Add(1) {
			case 1:
				<-first
			case 3: // the rest, after 2, the conflict
				<-second
			}
			return real()
		}
		answers := map[string]chan error{}
		start := func(gid string) {
			ch := make(chan error, 1)
			answers[gid] = ch
			go func() { _, _, err := r.StartSaga(context.Background(), gid, steps(1), nil); ch <- err }()
			synctest.Wait()
		}
		keep, lose := "keep", "lose"
		r.shards(t, keep, lose)
		start(keep + "-blocker") // is under way while the next two gather
		start(keep)
		start(lose)
		w := r.workers[0]
		shard := r.shardOf(lose)
		if err := w.post(t.Context(), func() { w.shards[shard].epoch-- }); err != nil { // as if another had taken it
			t.Fatal(err)
		}
		close(first)
		synctest.Wait()
		if len(answers[keep]) != 0 {
			t.Error("acknowledged before it was durable")
		}
		close(second)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(answers[keep]) != 1 {
			t.Fatal("the rest of the batch was dropped")
		}
		if err := <-answers[keep]; err != nil {
			t.Error(err)
		}
		if _, err := mem.Load(t.Context(), keep); err != nil {
			t.Error(err)
		}
	})
}

// TestShortBackoffIsKept: a wait shorter than the sweep's horizon is kept in
// memory, for the sweep has passed it. Kills: sleeps-too-soon.
func TestShortBackoffIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries atomic.Int32
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if tries.Add(1) < 4 {
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		r.startSaga("g1", steps(1, func(d *saga.Definition) {
			d.Steps[0].Retry = txn.Retry{Initial: 20 * time.Second, Factor: 1, Jitter: -1}
		}))
		r.wait("g1")
		if d := time.Since(began); d > 63*time.Second {
			t.Errorf("three waits of 20 s took %v", d)
		}
	})
}

// TestWaitIsTold: a waiter hears of the end at once, not by polling. Kills:
// no-publish.
func TestWaitIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			time.Sleep(100 * time.Millisecond)
			return ok(c)
		})
		r.startSaga("g1", steps(1))
		began := time.Now()
		r.wait("g1")
		if d := time.Since(began); d > 200*time.Millisecond {
			t.Errorf("told after %v", d)
		}
	})
}

// TestCommandReadBeforeAnotherOwnedIt: the same for a command on one that
// sleeps. Kills: no-since.
func TestCommandReadBeforeAnotherOwnedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newStore()
		apart := &faulty{Store: mem}
		st := &slowLoad{Store: apart}
		r1 := launch(t, st, nil, ok)
		r1.startSaga("warm-up", steps(1))
		begin(t, r1, "x", time.Hour)
		synctest.Wait()
		hold := st.hold()
		late := make(chan error, 1)
		go func() { _, err := r1.Commit(t.Context(), "x"); late <- err }()
		synctest.Wait()
		apart.secede(t, r1)
		r2 := launch(t, mem, nil, ok)
		r2.startSaga("elsewhere", steps(1))
		if _, err := r2.Abort(t.Context(), "x", "me", "no"); err != nil {
			t.Fatal(err)
		}
		if err := r2.end(); err != nil {
			t.Fatal(err)
		}
		apart.mute.Store(false)
		time.Sleep(20 * time.Second) // r1 takes the shards back
		close(hold)
		if err := <-late; !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("commit of what was aborted elsewhere: %v, want ErrDecided", err)
		}
	})
}

// TestTryIsToldWhenItsShardIsLost. Kills: forget-tries.
func TestTryIsToldWhenItsShardIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		begin(t, r, "x", time.Hour)
		ended := make(chan error, 1)
		go func() {
			_, err := r.Try(t.Context(), "x", tcc.Branch{Name: "seat", Action: "flights.seat"})
			ended <- err
		}()
		synctest.Wait()
		if err := st.Release(t.Context(), r.cfg.Owner); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Acquire(t.Context(), "other", time.Hour, 1000); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(ended) != 1 {
			t.Fatal("the caller of the try waits for ever")
		}
		if err := <-ended; !errors.Is(err, errElsewhere) {
			t.Errorf("%v, want that the shard is elsewhere", err)
		}
	})
}

// TestAbortOfWhatCannotTurnBack. Kills: abort-always-ok.
func TestAbortOfWhatCannotTurnBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, ok)
		r.startSaga("g1", steps(1))
		r.wait("g1")
		if _, err := r.Abort(t.Context(), "g1", "me", "late"); !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("abort of a committed saga: %v, want ErrDecided", err)
		}
	})
}

// TestWaitSeesWhatHappensElsewhere. Kills: wait-no-poll.
func TestWaitSeesWhatHappensElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r1 := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			time.Sleep(5 * time.Second)
			return ok(c)
		})
		r1.startSaga("g1", steps(1))
		r2 := launch(t, st, nil, ok) // owns nothing
		if got := r2.wait("g1"); got != txn.Committed {
			t.Errorf("state %v, want COMMITTED", got)
		}
	})
}

// TestHashCoversEveryField. Kills: audit-prev-dropped.
func TestHashCoversEveryField(t *testing.T) {
	now := time.Now()
	base := store.Event{GID: "g", Seq: 1, At: now, Type: "started", Data: []byte("d"), Prev: []byte("p")}
	for field, change := range map[string]func(*store.Event){
		"Prev": func(ev *store.Event) { ev.Prev = []byte("q") },
		"GID":  func(ev *store.Event) { ev.GID = "h" },
		"Seq":  func(ev *store.Event) { ev.Seq = 2 },
		"At":   func(ev *store.Event) { ev.At = now.Add(time.Second) },
		"Type": func(ev *store.Event) { ev.Type = "replied" },
		"Data": func(ev *store.Event) { ev.Data = []byte("e") },
	} {
		ev := base
		change(&ev)
		if string(Hash(ev)) == string(Hash(base)) {
			t.Errorf("%s can be edited without a trace", field)
		}
	}
}

func (r *running) shards(t *testing.T, a, b string) {
	t.Helper()
	if r.shardOf(a) == r.shardOf(b) {
		t.Fatal("the test wants two shards")
	}
}
