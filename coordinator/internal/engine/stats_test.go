package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/saga/txn"
)

// What is refused for want of room, and what another coordinator takes, is
// counted.
func TestStatsOfRefusalsAndShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, &Config{MaxLive: 2}, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		r.startSaga("g1", steps(1))
		for _, gid := range []string{"g2", "g3"} {
			_, _, err := r.StartSaga(t.Context(), gid, steps(1), nil)
			t.Log(gid, err)
		}
		s := r.Stats()
		if refused := s.Refused[refusedFull] + s.Refused[refusedCrowded]; refused == 0 || s.Started[KindSaga]+refused != 3 {
			t.Errorf("refused %v, started %v of 3", s.Refused, s.Started)
		}
		if s.Acquired != uint64(s.Shards) || s.Lost != 0 || s.Live != int(s.Started[KindSaga]) || s.Limit != 2 {
			t.Errorf("stats are %+v", s)
		}
		if s.Batch.Count == 0 || s.Batch.Count != s.Commit.Count || s.Batch.Sum != float64(s.Started[KindSaga]) {
			t.Errorf("batches %+v, commits %+v", s.Batch, s.Commit)
		}

		if err := st.Release(t.Context(), r.cfg.Owner); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Acquire(t.Context(), "other", time.Hour, s.Shards); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s := r.Stats(); s.Lost != s.Acquired || s.Live != 0 {
			t.Errorf("after another took all: lost %d of %d, %d live", s.Lost, s.Acquired, s.Live)
		}
	})
}

// The backlog is that of the store, by kind: bulks are not transactions.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{StallAfter: time.Second}, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		begun := time.Now()
		r.startSaga("g1", steps(1))
		time.Sleep(2 * time.Second)
		r.startSaga("g2", steps(1))
		synctest.Wait()
		b, err := r.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := b.Unfinished[Ending{KindSaga, txn.Running}]; n != 2 || b.Stalled[KindSaga] != 1 || b.Paused[KindSaga] != 0 {
			t.Errorf("backlog %+v", b)
		}
		if at := b.Oldest[KindSaga]; at.Sub(begun).Abs() > time.Second || len(b.Oldest) != 1 {
			t.Errorf("the oldest of %v began at %v", begun, b.Oldest)
		}
	})
}
