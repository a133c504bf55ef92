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
	"github.com/amends-dev/amends/saga/txn"
)

var errLost = errors.New("connection lost")

// zombies is a store in which the writes of some transactions fail: first
// without effect and then, when they are tried one by one, with an effect that
// comes later: just before the next commit that succeeds, which had to wait for
// the locks of a session that its client gave up.
type zombies struct {
	store.Store
	version map[string]int64 // the write that fails, by gid
	times   map[string]int   // how often it fails when it is tried alone

	mu    sync.Mutex
	alone bool // since a commit of nothing, writes come one by one
	dead  []store.Batch
}

func (z *zombies) Commit(ctx context.Context, b store.Batch) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, w := range b.Writes {
		if w.Record.Version != z.version[w.Record.GID] {
			continue
		}
		if z.alone {
			z.dead = append(z.dead, b)
		}
		return errLost
	}
	for _, d := range z.dead {
		if err := z.Store.Commit(ctx, d); err != nil {
			return err
		}
		for _, w := range d.Writes {
			if z.times[w.Record.GID]--; z.times[w.Record.GID] == 0 {
				delete(z.version, w.Record.GID)
			}
		}
	}
	z.dead, z.alone = nil, len(b.Writes) == 0
	return z.Store.Commit(ctx, b)
}

// TestWriteThatLandsLate: a write that failed for good, as it seemed, lands
// after all. The coordinator must neither tell nor act on anything else than
// what the store then holds.
func TestWriteThatLandsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zombies{Store: newStore(), version: map[string]int64{"outcome": 2, "start": 1},
			times: map[string]int{"outcome": 1, "start": oneAttempts}}
		var calls atomic.Int32
		r := launch(t, z, nil, func(c dispatch.Call) txn.Replied {
			if c.GID == "outcome" && c.Op == txn.Do && calls.Add(1) > 1 {
				return txn.Replied{Outcome: txn.Refused, Message: "not a second time"}
			}
			return ok(c)
		})
		r.startSaga("outcome", steps(1))
		if got := r.wait("outcome"); got != txn.Committed {
			t.Errorf("the coordinator says %v", got)
		}
		time.Sleep(2 * fullSweep)
		rec, err := z.Load(t.Context(), "outcome")
		if err != nil || txn.State(rec.State) != txn.Committed {
			t.Errorf("the store says %v: %v", txn.State(rec.State), err)
		}
		if do, undo := calls.Load(), r.p.calls(txn.Undo); do != 1 || undo != 0 {
			t.Errorf("%d calls and %d undos of what was done and committed at once", do, undo)
		}
		checkTrail(t, z, "outcome")
		if _, created, err := r.StartSaga(t.Context(), "start", steps(1), nil); err != nil || !created {
			t.Errorf("a start that took effect: created %v, %v", created, err)
		}
		r.wait("start")
	})
}

// TestOutageAmongSingleWrites: the store goes away while a batch with a poison
// is written one by one. Only the poison is given up, the others wait.
func TestOutageAmongSingleWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faulty{Store: newStore()}
		hold := make(chan struct{})
		var singles atomic.Int32
		var away atomic.Int64 // until when, in Unix nanoseconds
		st.commit = func(b store.Batch, real func() error) error {
			if time.Now().UnixNano() < away.Load() {
				return errLost
			}
			for _, w := range b.Writes {
				switch {
				case w.Record.GID == "first" && w.Record.Version == 1:
					<-hold
				case w.Record.GID == "poison":
					return errors.New("data too long for column")
				}
			}
			if len(b.Writes) == 1 && b.Writes[0].Record.GID != "first" && singles.Add(1) == 3 {
				away.Store(time.Now().Add(10 * time.Second).UnixNano())
				return errLost
			}
			return real()
		}
		r := launch(t, st, &Config{Workers: 1}, ok)
		answers := make([]error, 20)
		var all sync.WaitGroup
		start := func(i int, gid string) {
			all.Go(func() { _, _, answers[i] = r.StartSaga(context.Background(), gid, steps(1), nil) })
			synctest.Wait()
		}
		start(0, "first") // is being committed while the others gather
		for i := 1; i < len(answers)-1; i++ {
			start(i, fmt.Sprintf("g%d", i))
		}
		start(len(answers)-1, "poison")
		close(hold)
		all.Wait()
		for i, err := range answers[:len(answers)-1] {
			if err != nil {
				t.Errorf("start %d was given up in the outage: %v", i, err)
			}
		}
		if err := answers[len(answers)-1]; !errors.Is(err, amendsv1.ErrUnavailable) {
			t.Errorf("the poison: %v, want ErrUnavailable", err)
		}
		for i := 1; i < len(answers)-1; i++ {
			r.wait(fmt.Sprintf("g%d", i))
		}
	})
}
