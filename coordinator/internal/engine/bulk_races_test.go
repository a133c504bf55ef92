package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// TestBulkWhenThereIsNoRoom: it takes none, and may make some.
func TestBulkWhenThereIsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, &Config{MaxLive: 4}, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do {
				return txn.Replied{}
			}
			return ok(c)
		})
		for i := range 4 {
			d := steps(1)
			d.Steps[0].Action = fmt.Sprintf("svc%d.a", i)
			r.startSaga(fmt.Sprint(i), d)
		}
		if _, _, err := r.StartSaga(t.Context(), "g", steps(1), nil); !errors.Is(err, amendsv1.ErrOverloaded) {
			t.Fatalf("there is room: %v", err)
		}
		if _, _, err := r.StartBulk(t.Context(), bulkOf("b", abort, 50)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if state, p := progress(t, r, st, "b"); state != txn.Committed || p.Acted != 4 || r.Live() != 0 {
			t.Errorf("the bulk is %v, %+v; %d are live", state, p, r.Live())
		}
	})
}

// TestBulkFromAnotherAddress: where nobody is asked who they are, the actor is
// the address, and a request that is repeated on another connection the same.
func TestBulkFromAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, ok)
		b := bulkOf("b", pauseIt, 50)
		first, created, err := r.StartBulk(t.Context(), b)
		b.Actor = "127.0.0.1:54321"
		again, createdAgain, errAgain := r.StartBulk(t.Context(), b)
		if err != nil || errAgain != nil || !created || createdAgain || first.GID != again.GID {
			t.Errorf("created %v, %v; again %v, %v", created, err, createdAgain, errAgain)
		}
	})
}

// TestSlowBulkIsCancelled: none is acted on after that, however long the bulk
// waits for its next turn.
func TestSlowBulkIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, unknownB)
		stuckSagas(r, 5)
		for id, rate := range map[string]float64{"slow": 0.02, "never": 1e-300} {
			if _, _, err := r.StartBulk(t.Context(), bulkOf(id, pauseIt, rate)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(70 * time.Second)
		for _, id := range []string{"slow", "never"} {
			if _, err := r.CancelBulk(t.Context(), wire.BulkKey("", id), "bob", "enough"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Hour)
		yes := true
		if found, err := st.List(t.Context(), store.Query{Paused: &yes}, nil, 10); err != nil || len(found) != 1 {
			t.Errorf("%d are paused, %v; want the one before it was cancelled", len(found), err)
		}
	})
}

// outage is a store that does not answer for a while.
type outage struct {
	faulty
	down atomic.Bool
}

func (o *outage) Commit(ctx context.Context, b store.Batch) error {
	if o.down.Load() {
		return errLost
	}
	return o.Store.Commit(ctx, b)
}

func (o *outage) Load(ctx context.Context, gid string) (store.Record, error) {
	if o.down.Load() {
		return store.Record{}, errLost
	}
	return o.Store.Load(ctx, gid)
}

// TestBulkOutlivesAnOutage: what cannot be asked while the store is away has not
// failed.
func TestBulkOutlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &outage{faulty: faulty{Store: newStore()}}
		r := launch(t, st, nil, unknownB)
		stuckSagas(r, 50)
		time.Sleep(10 * time.Minute) // they have left memory
		if _, _, err := r.StartBulk(t.Context(), bulkOf("b", pauseIt, 10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		st.down.Store(true)
		time.Sleep(25 * time.Second) // it ends in the middle of a page
		st.down.Store(false)
		time.Sleep(2 * time.Minute)
		if state, p := progress(t, r, st, "b"); state != txn.Committed || p.Acted != 50 || p.Failed != 0 {
			t.Errorf("the bulk is %v: %+v, want 50 acted on", state, p)
		}
	})
}

// TestBulkProgressNeverFalls: a coordinator that lost a bulk for a while and
// carries it on does not undo what another one noted.
func TestBulkProgressNeverFalls(t *testing.T) {
	m := &bulkMachine{state: txn.Running, progress: BulkProgress{Acted: 7, Failed: 1}}
	if next, err := m.advance(bulkStep{progress: BulkProgress{Acted: 5, Skipped: 1}}); err != nil || next != machine(m) {
		t.Errorf("it becomes %+v, %v", next, err)
	}
}
