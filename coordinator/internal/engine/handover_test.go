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

// slowCommits is a store whose commits, and nothing else, take their time: a
// shard could be given away while one that it was in is under way.
type slowCommits struct {
	store.Store
	takes atomic.Int64 // nanoseconds
	under atomic.Int64 // commits that are under way
}

func (s *slowCommits) Commit(ctx context.Context, b store.Batch) error {
	s.under.Add(1)
	defer s.under.Add(-1)
	time.Sleep(time.Duration(s.takes.Load()))
	return s.Store.Commit(ctx, b)
}

// sameShard returns gids of one shard, which is the same each time.
func sameShard(e *Engine, n int) (gids []string) {
	for i := 0; len(gids) < n; i++ {
		if gid := fmt.Sprint("h", i); e.shardOf(gid) == 7 {
			gids = append(gids, gid)
		}
	}
	return gids
}

// leaver is a band of two on a store with slow commits, of which the first has
// everything and the other has just come.
func leaver(t *testing.T, answer func(dispatch.Call) txn.Replied) (b *band, a *player, st *slowCommits) {
	t.Helper()
	st = &slowCommits{Store: newStore()}
	b = newBand(t, st, answer)
	a = b.join("a", Config{})
	b.until("the first", func() bool { return b.even(1) })
	return b, a, st
}

// drains begins the drain of a, whose shards all go to a new member, and returns
// what waits for its end.
func (b *band) drains(a *player) (ended chan error) {
	b.t.Helper()
	b.join("b", Config{})
	ended = make(chan error, 1)
	go func() { ended <- a.Drain(context.Background()) }()
	return ended
}

func (p *player) leaving(shard int) bool {
	answer := make(chan bool, 1)
	w := p.workers[shard%len(p.workers)]
	if w.post(context.Background(), func() { answer <- w.shards[shard] != nil && w.shards[shard].leaving }) != nil {
		return false
	}
	return <-answer
}

// TestNothingIsSentWhileLeaving: while calls under way are waited for, an answer
// that comes leads to no new call. Whoever gets the shard makes it, once.
func TestNothingIsSentWhileLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, asked := make(chan struct{}), make(chan struct{}, 10)
		var hangs string
		var hung atomic.Bool
		b, a, _ := leaver(t, func(c dispatch.Call) txn.Replied {
			if c.Name == "a" {
				asked <- struct{}{}
				if c.GID == hangs && hung.CompareAndSwap(false, true) {
					return txn.Replied{} // never, which keeps the shard for the whole grace
				}
				<-gate
			}
			return ok(c)
		})
		gids := sameShard(a.Engine, 2)
		hangs = gids[0]
		for _, gid := range gids {
			b.start(gid, steps(2))
			<-asked
		}
		ended := b.drains(a)
		b.until("the shard is leaving", func() bool { return a.leaving(7) })
		sent := a.sends.Load()
		close(gate)
		synctest.Wait()
		if n := a.sends.Load() - sent; n != 0 || !a.leaving(7) {
			t.Errorf("%d calls went out from a shard that is leaving (still: %v)", n, a.leaving(7))
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		for _, gid := range gids {
			b.ends(gid)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if n := b.sent[gids[1]+"/b/do"]; n != 1 {
			t.Errorf("what came after the answer was called %d times: %v", n, b.sent)
		}
	})
}

// TestHandOverWaitsForWhatIsWritten: a shard does not go while a transition of
// it is being written, which would be lost, and its call made again.
func TestHandOverWaitsForWhatIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b, a, st := leaver(t, func(c dispatch.Call) txn.Replied {
			if c.Name == "a" {
				<-gate
			}
			return ok(c)
		})
		gid := sameShard(a.Engine, 1)[0]
		b.start(gid, steps(2))
		synctest.Wait()
		st.takes.Store(int64(400 * time.Millisecond))
		ended := b.drains(a)
		b.until("the shard is leaving", func() bool { return a.leaving(7) })
		close(gate) // the answer is being written when nothing is under way any more
		synctest.Wait()
		if st.under.Load() == 0 || !a.leaving(7) {
			t.Fatal("nothing is being written of the shard that leaves: this shows nothing")
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		b.ends(gid)
		b.mu.Lock()
		defer b.mu.Unlock()
		for what, n := range b.sent {
			if n != 1 {
				t.Errorf("%s was called %d times", what, n)
			}
		}
	})
}

// TestHandOverEndsUnderLoad: what comes for a shard that is to go is turned away
// once nothing of it is under way, or there would always be something that is
// being written.
func TestHandOverEndsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, a, st := leaver(t, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		st.takes.Store(int64(50 * time.Millisecond))
		gids := sameShard(a.Engine, 400)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var clients sync.WaitGroup
		var refused atomic.Int64
		for c := range 4 {
			clients.Go(func() { // each asks again as soon as it is answered
				for i := c; i < len(gids) && ctx.Err() == nil; i += 4 {
					_, _, err := a.StartSaga(ctx, gids[i], steps(1), nil)
					if errors.Is(err, amendsv1.ErrNotOwner) {
						refused.Add(1)
						return
					}
					if err != nil && ctx.Err() == nil {
						t.Errorf("start %s: %v", gids[i], err)
					}
				}
			})
		}
		ended := b.drains(a)
		left := time.NewTimer(handOverGrace + 9*time.Second) // rounds of the lease loop included
		defer left.Stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-left.C:
			t.Errorf("the shard has not gone: %d starts refused, shares %v", refused.Load(), b.shares())
		}
		cancel()
		clients.Wait()
		if refused.Load() == 0 {
			t.Error("no start came while the shard was about to go: this shows nothing")
		}
	})
}
