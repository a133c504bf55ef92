package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// TestWaitersAskNoStore: those who wait for a transaction that is in memory ask
// the store nothing, however long it takes, and do not notice that it is away.
func TestWaitersAskNoStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &counted{Store: newStore()}
		answer := make(chan struct{})
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			<-answer
			return ok(c)
		})
		r.startSaga("long", steps(1))
		synctest.Wait()
		before := st.loads.Load()
		const n = 100
		ends := make(chan error, n)
		for range n {
			go func() {
				_, err := r.Wait(t.Context(), "long")
				ends <- err
			}()
		}
		time.Sleep(10 * waitPoll) // virtual
		if loads := st.loads.Load() - before; loads != 0 {
			t.Errorf("%d loads for %d who waited", loads, n)
		}
		close(answer)
		for range n {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
	})
}

// slowDue is a store whose answer to what is due takes its time.
type slowDue struct {
	store.Store
	asked atomic.Int64 // about all that is due
}

func (s *slowDue) Due(ctx context.Context, q store.DueQuery) ([]store.Record, error) {
	if q.From.IsZero() {
		s.asked.Add(1)
	}
	time.Sleep(5 * time.Second) // virtual
	return s.Store.Due(ctx, q)
}

// TestFullSweepIsPaced: a look at all that is due, which takes long where much
// is, does not become what a store is busy with.
func TestFullSweepIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slowDue{Store: newStore()}
		r := launch(t, st, &Config{Workers: 1}, ok)
		r.startSaga("one", steps(1))
		r.wait("one")
		time.Sleep(2 * time.Minute) // virtual
		before := st.asked.Load()
		time.Sleep(20 * fullSweep) // virtual
		if n := st.asked.Load() - before; n < 1 || n > 4 {
			t.Errorf("looked at all that is due %d times in %v", n, 20*fullSweep)
		}
	})
}
