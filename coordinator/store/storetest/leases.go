package storetest

import (
	"errors"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

func leaseCases() []testCase {
	return []testCase{
		{"Lease/Shards", testShards},
		{"Lease/AcquireAndRelease", testAcquire},
		{"Lease/Expiry", testExpiry},
		{"Lease/RenewExpired", testRenewExpired},
		{"Lease/Fencing", testFencing},
		{"Lease/CheckOnly", testCheckOnly},
	}
}

func testShards(f *fixture) {
	n, err := f.st.Shards(f.ctx)
	f.ok(err)
	same(f, "shards", n, Shards)
	if _, err := f.st.Acquire(f.ctx, "", time.Hour, 1); err == nil {
		f.Fatal("a lease was given to an owner without a name")
	}
}

// testHoldings: first took the first of the leases, second the rest.
func testHoldings(f *fixture, leases []store.Lease) {
	all, err := f.st.Leases(f.ctx)
	f.ok(err)
	same(f, "holdings", len(all), Shards)
	for i, h := range all {
		owner := "second"
		if i < 3 {
			owner = "first"
		}
		same(f, "holding", h, store.Holding{Lease: leases[i], Owner: owner, ExpiresAt: h.ExpiresAt})
		if left := time.Until(h.ExpiresAt); left < 30*time.Minute || left > 90*time.Minute {
			f.Fatalf("shard %d is held for %v more, want about 1h", i, left)
		}
	}
}

func testAcquire(f *fixture) {
	same(f, "taken by another owner", len(f.take("other", time.Hour)), 0)
	same(f, "taken again by its owner", len(f.take("owner", time.Hour)), 0)
	before := f.leases
	f.ok(f.st.Release(f.ctx, "stranger"))
	same(f, "taken after a stranger's release", len(f.take("other", time.Hour)), 0)
	f.ok(f.st.Release(f.ctx, "owner"))

	first, err := f.st.Acquire(f.ctx, "first", time.Hour, 3)
	f.ok(err)
	second, err := f.st.Acquire(f.ctx, "second", time.Hour, 100)
	f.ok(err)
	same(f, "first's share", len(first), 3)
	same(f, "second's share", len(second), Shards-3)
	seen := make(map[int]bool)
	for _, l := range slices.Concat(first, second) {
		if seen[l.Shard] {
			f.Fatalf("shard %d was given twice", l.Shard)
		}
		seen[l.Shard] = true
		if l.Epoch <= before[l.Shard].Epoch {
			f.Fatalf("shard %d: epoch %d follows %d", l.Shard, l.Epoch, before[l.Shard].Epoch)
		}
	}
	testHoldings(f, slices.Concat(first, second))
	held, err := f.st.Renew(f.ctx, "first", time.Hour)
	f.ok(err)
	same(f, "renewed", held, first)
	held, err = f.st.Renew(f.ctx, "owner", time.Hour)
	f.ok(err)
	same(f, "renewed by one who holds nothing", len(held), 0)
	none, err := f.st.Acquire(f.ctx, "third", time.Hour, 0)
	f.ok(err)
	same(f, "taken with limit 0", len(none), 0)
}

func testExpiry(f *fixture) {
	f.ok(f.st.Release(f.ctx, "owner"))
	short := f.take("short", 300*time.Millisecond)
	same(f, "taken", len(short), Shards)
	same(f, "taken while they last", len(f.take("next", time.Hour)), 0)
	var taken []store.Lease
	f.eventually("expiry", func() bool {
		taken = append(taken, f.take("next", time.Hour)...)
		return len(taken) == Shards
	})
	for i, l := range taken {
		if l.Epoch <= short[i].Epoch {
			f.Fatalf("shard %d: epoch %d follows %d", l.Shard, l.Epoch, short[i].Epoch)
		}
	}
	held, err := f.st.Renew(f.ctx, "short", time.Hour)
	f.ok(err)
	same(f, "renewed after others took them", len(held), 0)
}

func testRenewExpired(f *fixture) {
	f.ok(f.st.Release(f.ctx, "owner"))
	short := f.take("short", time.Nanosecond)
	same(f, "taken", len(short), Shards)
	// Expired, but taken by nobody: whoever renews first keeps it.
	held, err := f.st.Renew(f.ctx, "short", time.Hour)
	f.ok(err)
	same(f, "renewed though expired", held, short)
	same(f, "taken after that", len(f.take("next", time.Hour)), 0)
	f.commit(create("t"))
}

func testFencing(f *fixture) {
	mine, theirs := create("mine"), create("theirs")
	for mine.Record.Shard == theirs.Record.Shard {
		theirs.Record.Shard = (theirs.Record.Shard + 1) % Shards
	}
	f.commit(mine, theirs)
	stale := f.batch(next(mine), next(theirs), create("new")) // with the old leases
	old := f.leases[theirs.Record.Shard]
	f.ok(f.st.Release(f.ctx, "owner"))
	f.take("other", time.Hour)
	lost := []int{mine.Record.Shard, theirs.Record.Shard, shardOf("new")}

	// One stale lease is enough, however many good ones stand beside it.
	fresh := f.batch(next(mine), next(theirs))
	for i := range fresh.Leases {
		if fresh.Leases[i].Shard == old.Shard {
			fresh.Leases[i] = old
		}
	}
	for name, c := range map[string]struct {
		batch store.Batch
		lost  []int
	}{
		"all stale":       {stale, lost},
		"one stale":       {fresh, []int{old.Shard}},
		"from the future": {store.Batch{Leases: []store.Lease{{Shard: old.Shard, Epoch: 1 << 40}}}, []int{old.Shard}},
		"no such shard":   {store.Batch{Leases: []store.Lease{{Shard: Shards + 5, Epoch: 1}}}, []int{Shards + 5}},
	} {
		err := f.st.Commit(f.ctx, c.batch)
		var conflict *store.ConflictError
		if !errors.Is(err, store.ErrConflict) || !errors.As(err, &conflict) {
			f.Fatalf("%s: %v, want a *ConflictError", name, err)
		}
		slices.Sort(c.lost)
		same(f, name+": shards lost", conflict.Shards, slices.Compact(c.lost))
	}
	same(f, "record of a stale owner", f.load("mine"), mine.Record)
	same(f, "record beside it", f.load("theirs"), theirs.Record)
	same(f, "events", f.events("mine"), mine.Events)
	if _, err := f.st.Load(f.ctx, "new"); !errors.Is(err, store.ErrNotFound) {
		f.Fatalf("a stale owner created a transaction: %v", err)
	}
	f.commit(next(mine))
	same(f, "record of the new owner", f.load("mine"), next(mine).Record)
}

func testCheckOnly(f *fixture) {
	b := store.Batch{}
	for _, l := range f.leases {
		b.Leases = append(b.Leases, l)
	}
	f.ok(f.st.Commit(f.ctx, b))
	f.ok(f.st.Release(f.ctx, "owner"))
	f.take("other", time.Hour)
	if err := f.st.Commit(f.ctx, b); !errors.Is(err, store.ErrConflict) {
		f.Fatalf("leases alone are not checked: %v", err)
	}
}
