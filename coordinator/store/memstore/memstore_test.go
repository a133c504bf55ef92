package memstore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		st := memstore.New(&memstore.Config{Shards: storetest.Shards})
		return storetest.Backend{
			Open: func() store.Store {
				st = st.Reopen()
				return st
			},
			Crash: func() {
				if err := st.Close(); err != nil { // a dead process writes no more
					t.Fatal(err)
				}
			},
		}
	})
}

// TestVirtualTime: leases run out on the clock of a synctest bubble.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New(nil)
		if n, err := st.Shards(t.Context()); err != nil || n != memstore.DefaultShards {
			t.Fatalf("%d shards: %v", n, err)
		}
		take := func(owner string) int {
			leases, err := st.Acquire(t.Context(), owner, 10*time.Second, 1000)
			if err != nil {
				t.Fatal(err)
			}
			return len(leases)
		}
		if n := take("a"); n != memstore.DefaultShards {
			t.Fatalf("a took %d", n)
		}
		time.Sleep(10*time.Second - 1)
		if n := take("b"); n != 0 {
			t.Fatalf("b took %d before the leases ran out", n)
		}
		time.Sleep(1)
		if n := take("b"); n != memstore.DefaultShards {
			t.Fatalf("b took %d after the leases ran out", n)
		}
	})
}

// TestNoOutbox: messages are refused, not dropped.
func TestNoOutbox(t *testing.T) {
	s := memstore.New(nil)
	leases, err := s.Acquire(t.Context(), "one", time.Hour, 1)
	if err != nil {
		t.Fatal(err)
	}
	w := store.Write{
		Record:   store.Record{GID: "a", Shard: leases[0].Shard, Version: 1},
		Messages: []store.Message{{ID: "1", Topic: "life"}},
	}
	err = s.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{w}})
	if !errors.Is(err, store.ErrNoOutbox) {
		t.Error(err)
	}
	if _, err := s.Load(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after a refusal: %v", err)
	}
}
