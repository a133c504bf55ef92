package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

func faultCases() []testCase {
	return []testCase{
		{"Fault/RepeatedCommit", testRepeatedCommit},
		{"Fault/ReplyLost", testReplyLost},
		{"Fault/CrashAndReopen", testCrash},
		{"Fault/CrashManyTimes", testCrashManyTimes},
		{"Fault/OldOwnerAfterCrash", testOldOwner},
		{"Fault/CloseAndReopen", testCloseAndReopen},
		{"Fault/Closed", testClosed},
		{"Fault/CancelledContext", testCancelled},
		{"Fault/Concurrent", testConcurrent},
		{"Fault/ConcurrentTakeover", testTakeover},
	}
}

func testRepeatedCommit(f *fixture) {
	a, b := create("a"), create("b")
	a.Record.Labels = map[string]string{"k": "v"}
	batch := f.batch(a, b)
	for range 3 {
		f.ok(f.st.Commit(f.ctx, batch))
	}
	f.commit(next(a))
	f.ok(f.st.Commit(f.ctx, batch))
	same(f, "record", f.load("a"), next(a).Record)
	same(f, "record beside it", f.load("b"), b.Record)
	same(f, "number of events", len(f.events("a")), 2)
	found, err := f.st.List(f.ctx, store.Query{Labels: map[string]string{"k": "v"}}, nil, 10)
	f.ok(err)
	same(f, "found by label", len(found), 1)
}

func testReplyLost(f *fixture) {
	faults := NewFaults(f.st, nil)
	w := create("t")
	for i := range 5 {
		b := f.batch(w)
		if i%2 == 0 {
			faults.LoseNextReply()
		} else {
			faults.LoseNextRequest()
		}
		if err := faults.Commit(f.ctx, b); !errors.Is(err, ErrFault) {
			f.Fatalf("no fault: %v", err)
		}
		r, err := f.st.Load(f.ctx, "t")
		executed := err == nil && r.Version == w.Record.Version
		same(f, "was executed", executed, i%2 == 0)
		f.ok(faults.Commit(f.ctx, b))
		same(f, "record", f.load("t"), w.Record)
		same(f, "number of events", len(f.events("t")), i+1)
		w = next(w)
	}
}

func testCrash(f *fixture) {
	a, b := create("a"), create("b")
	a.Record.Labels = map[string]string{"k": "v"}
	f.commit(a, b)
	f.commit(next(a))
	before := f.leases[a.Record.Shard]
	f.crash()
	same(f, "record", f.load("a"), next(a).Record)
	same(f, "record beside it", f.load("b"), b.Record)
	same(f, "number of events", len(f.events("a")), 2)
	if now := f.leases[a.Record.Shard]; now.Epoch <= before.Epoch {
		f.Fatalf("epoch %d follows %d", now.Epoch, before.Epoch)
	}
	n, err := f.st.Shards(f.ctx)
	f.ok(err)
	same(f, "shards", n, Shards)
	found, err := f.st.List(f.ctx, store.Query{Labels: map[string]string{"k": "v"}}, nil, 10)
	f.ok(err)
	same(f, "found by label", len(found), 1)
	f.commit(next(next(a)))
}

func testCrashManyTimes(f *fixture) {
	var all []store.Write
	for round := range 5 {
		for i := range 20 {
			w := create(fmt.Sprintf("r%d-%d", round, i))
			f.commit(w)
			all = append(all, w)
		}
		f.crash()
		for _, w := range all {
			same(f, "record", f.load(w.Record.GID), w.Record)
		}
	}
}

// testOldOwner: what a dead process had on its way does not arrive after its
// successor has taken over.
func testOldOwner(f *fixture) {
	w := create("t")
	f.commit(w)
	late := f.batch(next(w))
	f.crash()
	if err := f.st.Commit(f.ctx, late); !errors.Is(err, store.ErrConflict) {
		f.Fatalf("a commit of the dead owner: %v, want ErrConflict", err)
	}
	same(f, "record", f.load("t"), w.Record)
}

func testCloseAndReopen(f *fixture) {
	w := create("t")
	f.commit(w)
	f.ok(f.st.Release(f.ctx, "owner"))
	f.ok(f.st.Close())
	f.open()
	same(f, "record", f.load("t"), w.Record)
	same(f, "events", f.events("t"), w.Events)
}

// calls is one call of each kind.
func calls(f *fixture, st store.Store) map[string]func(ctx context.Context) error {
	batch := f.batch(create("called"))
	return map[string]func(ctx context.Context) error{
		"shards":  func(ctx context.Context) error { _, err := st.Shards(ctx); return err },
		"acquire": func(ctx context.Context) error { _, err := st.Acquire(ctx, "o", time.Hour, 1); return err },
		"renew":   func(ctx context.Context) error { _, err := st.Renew(ctx, "o", time.Hour); return err },
		"release": func(ctx context.Context) error { return st.Release(ctx, "o") },
		"commit":  func(ctx context.Context) error { return st.Commit(ctx, batch) },
		"load":    func(ctx context.Context) error { _, err := st.Load(ctx, "called"); return err },
		"due": func(ctx context.Context) error {
			_, err := st.Due(ctx, store.DueQuery{Shards: everyShard(), Until: at(9), Limit: 9})
			return err
		},
		"list":   func(ctx context.Context) error { _, err := st.List(ctx, store.Query{}, nil, 9); return err },
		"count":  func(ctx context.Context) error { _, err := st.Count(ctx, store.Query{}); return err },
		"events": func(ctx context.Context) error { _, err := st.Events(ctx, "called", 0, 9); return err },
		"purge":  func(ctx context.Context) error { _, err := st.Purge(ctx, at(9), 9); return err },
	}
}

func testClosed(f *fixture) {
	old := f.st
	all := calls(f, old)
	f.ok(old.Release(f.ctx, "owner"))
	f.ok(old.Close())
	f.ok(old.Close())
	for name, call := range all {
		if err := call(f.ctx); !errors.Is(err, store.ErrClosed) {
			f.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	f.open()
	if _, err := f.st.Load(f.ctx, "called"); !errors.Is(err, store.ErrNotFound) {
		f.Fatalf("a commit after Close was executed: %v", err)
	}
}

func testCancelled(f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	for name, call := range calls(f, f.st) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			f.Errorf("%s with a cancelled context: %v, want context.Canceled", name, err)
		}
	}
	if _, err := f.st.Load(f.ctx, "called"); !errors.Is(err, store.ErrNotFound) {
		f.Fatalf("a cancelled commit was executed: %v", err)
	}
	f.commit(create("called")) // the store still works
}

// testConcurrent lets a committer per shard run beside readers.
func testConcurrent(f *fixture) {
	const rounds = 40
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for shard := range Shards {
		writers.Go(func() {
			gid := fmt.Sprintf("t%d", shard)
			w := create(gid)
			w.Record.Shard = shard
			for range rounds {
				extra := create(fmt.Sprintf("%s-%d", gid, w.Record.Version))
				extra.Record.Shard = shard
				b := store.Batch{Leases: []store.Lease{f.leases[shard]}, Writes: []store.Write{w, extra}}
				if err := f.st.Commit(f.ctx, b); err != nil {
					f.Errorf("commit: %v", err)
					return
				}
				w = next(w)
			}
		})
	}
	for range 3 {
		readers.Go(func() { readUntil(f, done) })
	}
	writers.Wait()
	close(done)
	readers.Wait()
	for shard := range Shards {
		gid := fmt.Sprintf("t%d", shard)
		same(f, "version of "+gid, f.load(gid).Version, rounds)
		same(f, "events of "+gid, len(f.events(gid)), rounds)
	}
	same(f, "rows", len(pages(f, store.Query{}, 50, nil)), Shards*(rounds+1))
}

func readUntil(f *fixture, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		events, err := f.st.Events(f.ctx, "t3", 0, 1000)
		if err != nil {
			f.Errorf("events: %v", err)
			return
		}
		r, err := f.st.Load(f.ctx, "t3")
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			f.Errorf("load: %v", err)
			return
		}
		if len(events) > 0 && r.EventSeq < events[len(events)-1].Seq {
			f.Errorf("a row is older than its events: %d, %d", r.EventSeq, len(events))
			return
		}
		if _, err := f.st.List(f.ctx, store.Query{Unfinished: true}, nil, 20); err != nil {
			f.Errorf("list: %v", err)
			return
		}
	}
}

// testTakeover lets many owners fight for the shards while each counts in one
// transaction per shard. However it goes, no count is lost or made twice.
func testTakeover(f *fixture) {
	f.ok(f.st.Release(f.ctx, "owner"))
	var wg sync.WaitGroup
	written := make([]int64, 4)
	for i := range written {
		wg.Go(func() { written[i] = fight(f, fmt.Sprintf("owner-%d", i)) })
	}
	wg.Wait()
	var total, versions int64
	for _, n := range written {
		total += n
	}
	for _, r := range pages(f, store.Query{}, 50, nil) {
		versions += r.Version
		same(f, "events", int64(len(f.events(r.GID))), r.Version)
	}
	same(f, "writes that were acknowledged, and versions", total, versions)
}

func fight(f *fixture, owner string) (written int64) {
	for range 60 {
		leases, err := f.st.Acquire(f.ctx, owner, time.Millisecond, 2)
		if err != nil {
			f.Errorf("acquire: %v", err)
			return written
		}
		for _, l := range leases {
			gid := fmt.Sprintf("count-%d", l.Shard)
			w := create(gid)
			w.Record.Shard = l.Shard
			switch r, err := f.st.Load(f.ctx, gid); {
			case err == nil:
				w = next(store.Write{Record: r})
			case !errors.Is(err, store.ErrNotFound):
				f.Errorf("load: %v", err)
				return written
			}
			err := f.st.Commit(f.ctx, store.Batch{Leases: []store.Lease{l}, Writes: []store.Write{w}})
			switch {
			case err == nil:
				written++
			case !errors.Is(err, store.ErrConflict):
				f.Errorf("commit: %v", err)
				return written
			}
		}
	}
	return written
}
