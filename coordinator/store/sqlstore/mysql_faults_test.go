package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// faultyCommits are the ways in which the end of a transaction can be lost.
func faultyCommits(t *testing.T, db *sql.DB) map[string]func(connection uint32) verdict {
	kill := func(connection uint32) {
		if _, err := db.Exec(`KILL ?`, connection); err != nil {
			t.Errorf("kill: %v", err)
		}
	}
	return map[string]func(uint32) verdict{
		"request lost": func(uint32) verdict { return loseRequest },
		"reply lost":   func(uint32) verdict { return loseReply },
		"killed": func(c uint32) verdict {
			kill(c)
			return pass
		},
		"killed unheard": func(c uint32) verdict {
			kill(c)
			return loseReply
		},
	}
}

// TestMySQLLostCommits lets the COMMIT of each kind of call get lost, before
// or after the server executed it: the call answers as if nothing had been.
func TestMySQLLostCommits(t *testing.T) {
	dsn := servicestest.MySQL(t)
	p, db := startProxy(t, dsn), admin(t, dsn)
	st := openMySQL(t, p.dsn)
	for name, fault := range faultyCommits(t, db) {
		t.Run(name, func(t *testing.T) { testLostCommits(t, st, func() { p.nextBy(fault) }) })
	}
}

func testLostCommits(t *testing.T, st store.Store, lose func()) {
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Acquire: exactly what it took, though it may have taken it before.
	lose()
	leases, err := st.Acquire(t.Context(), "owner", time.Hour, 3)
	ok(err)
	held, err := st.Renew(t.Context(), "owner", time.Hour)
	ok(err)
	if len(leases) != 3 || fmt.Sprint(held) != fmt.Sprint(leases) {
		t.Fatalf("acquired %v, held %v", leases, held)
	}
	lose()
	if held, err = st.Renew(t.Context(), "owner", time.Hour); err != nil || fmt.Sprint(held) != fmt.Sprint(leases) {
		t.Fatalf("renewed %v of %v: %v", held, leases, err)
	}
	// Commit: once, whole.
	var batch store.Batch
	for i := range 50 {
		w := write(fmt.Sprintf("t%d", i), 1)
		w.Record.Shard, w.Record.FinishedAt = leases[i%3].Shard, time.Unix(int64(i), 0)
		w.Record.Labels = map[string]string{"k": "v"}
		batch.Writes = append(batch.Writes, w)
	}
	batch.Leases = leases
	lose()
	ok(st.Commit(t.Context(), batch))
	lose()
	ok(st.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{write("t7", 2)}}))
	if n := total(t, st); n != 50 {
		t.Fatalf("%d transactions are there, 50 were committed", n)
	}
	events, err := st.Events(t.Context(), "t7", 0, 9)
	if ok(err); len(events) != 2 {
		t.Fatalf("%d events, want 2", len(events))
	}
	// Purge: counts each once, and no more than were asked for.
	for _, limit := range []int{20, 100} {
		before := total(t, st)
		lose()
		n, err := st.Purge(t.Context(), time.Unix(99, 0), limit)
		ok(err)
		if left := total(t, st); int64(n) != before-left || n > limit {
			t.Fatalf("says that it purged %d of at most %d, there were %d and are %d", n, limit, before, left)
		}
	}
	_, err = st.Load(t.Context(), "t7") // t7 has come to life again, and stays
	ok(err)
	lose()
	ok(st.Release(t.Context(), "owner"))
	if held, err := st.Renew(t.Context(), "owner", time.Hour); err != nil || len(held) != 0 {
		t.Fatalf("held after the release: %v, %v", held, err)
	}
	w := write("t7", 3)
	w.Record.FinishedAt = time.Unix(1, 0)
	again, err := st.Acquire(t.Context(), "cleaner", time.Hour, storetest.Shards)
	ok(err)
	ok(st.Commit(t.Context(), store.Batch{Leases: again, Writes: []store.Write{w}}))
	_, err = st.Purge(t.Context(), time.Unix(99, 0), 9)
	ok(err)
	ok(st.Release(t.Context(), "cleaner"))
}

// TestMySQLKilledConnections kills the connections of four committers, one
// every few milliseconds. No call fails, and each commit is there once.
func TestMySQLKilledConnections(t *testing.T) {
	dsn := servicestest.MySQL(t)
	st, db := openMySQL(t, dsn), admin(t, dsn)
	ctx, stop := context.WithCancel(t.Context())
	var committers sync.WaitGroup
	steps := 0
	committers.Go(func() { steps = countUp(ctx, t, st) })
	killConnections(t, db, 100)
	stop()
	committers.Wait()
	verifyCounts(t, st, steps)
}

// countUp lets four committers count up until ctx ends, each in a shard of its
// own, and create a transaction with each step. It returns the steps.
func countUp(ctx context.Context, t *testing.T, st store.Store) int {
	leases, err := st.Acquire(t.Context(), "owner", time.Hour, storetest.Shards)
	if err != nil || len(leases) < 4 {
		t.Errorf("acquired %v: %v", leases, err)
		return 0
	}
	var all sync.WaitGroup
	var steps [4]int
	for i, l := range leases[:4] {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				batch := store.Batch{Leases: []store.Lease{l}, Writes: []store.Write{
					write(fmt.Sprintf("count-%d", l.Shard), int64(n+1)), write(fmt.Sprintf("new-%d-%d", l.Shard, n), 1),
				}}
				for i := range batch.Writes {
					batch.Writes[i].Record.Shard = l.Shard
				}
				if err := st.Commit(t.Context(), batch); err != nil {
					t.Errorf("commit %d: %v", n, err)
					return
				}
				steps[i] = n + 1
			}
		})
	}
	all.Wait()
	return steps[0] + steps[1] + steps[2] + steps[3]
}

func verifyCounts(t *testing.T, st store.Store, steps int) {
	t.Helper()
	t.Logf("%d commits", steps)
	if n := total(t, st); n != int64(steps+4) || steps < 50 {
		t.Errorf("%d transactions after %d commits", n, steps)
	}
	list, err := st.List(t.Context(), store.Query{}, nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if events, err := st.Events(t.Context(), r.GID, 0, 1<<20); err != nil || int64(len(events)) != r.Version {
			t.Errorf("%s: version %d, %d events: %v", r.GID, r.Version, len(events), err)
		}
	}
}

// killConnections kills one of the database's connections after the other,
// but its own, until there are n kills.
func killConnections(t *testing.T, db *sql.DB, n int) {
	const theirs = `SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()
 ORDER BY RAND() LIMIT 1`
	for kills := 0; kills < n && !t.Failed(); {
		var id uint32
		switch err := db.QueryRowContext(t.Context(), theirs).Scan(&id); {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			t.Errorf("processlist: %v", err)
		default:
			if _, err := db.ExecContext(t.Context(), `KILL ?`, id); err == nil { // else it is gone already
				kills++
			}
		}
		<-time.After(rand.N(10 * time.Millisecond))
	}
}

// TestMySQLTwoStores lets the owners of two stores fight for the shards, under
// leases that end at once. However it goes, no count is lost or made twice.
func TestMySQLTwoStores(t *testing.T) {
	dsn := servicestest.MySQL(t)
	stores := []store.Store{openMySQL(t, dsn), openMySQL(t, dsn)}
	written, conflicts := make([]int64, 6), make([]int64, 6)
	var all sync.WaitGroup
	for i := range written {
		all.Go(func() {
			written[i], conflicts[i] = fight(t, stores[i%2], fmt.Sprintf("owner-%d", i))
		})
	}
	all.Wait()
	var acknowledged, versions, lost int64
	for i := range written {
		acknowledged, lost = acknowledged+written[i], lost+conflicts[i]
	}
	list, err := stores[0].List(t.Context(), store.Query{}, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		versions += r.Version
		if events, err := stores[1].Events(t.Context(), r.GID, 0, 1<<20); err != nil || int64(len(events)) != r.Version {
			t.Errorf("%s: version %d, %d events: %v", r.GID, r.Version, len(events), err)
		}
	}
	t.Logf("%d commits, %d conflicts", acknowledged, lost)
	if acknowledged != versions || lost == 0 {
		t.Errorf("%d commits were acknowledged, %d are there; %d conflicts", acknowledged, versions, lost)
	}
}

func fight(t *testing.T, st store.Store, owner string) (written, conflicts int64) {
	for range 60 {
		leases, err := st.Acquire(t.Context(), owner, time.Millisecond, 2)
		if err != nil {
			t.Errorf("acquire: %v", err)
		}
		for _, l := range leases {
			gid := fmt.Sprintf("count-%d", l.Shard)
			var version int64 = 1
			if r, err := st.Load(t.Context(), gid); err == nil {
				version = r.Version + 1
			} else if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("load: %v", err)
			}
			w := write(gid, version)
			w.Record.Shard = l.Shard
			switch err := st.Commit(t.Context(), store.Batch{Leases: []store.Lease{l}, Writes: []store.Write{w}}); {
			case err == nil:
				written++
			case errors.Is(err, store.ErrConflict):
				conflicts++
			default:
				t.Errorf("commit: %v", err)
			}
		}
	}
	return written, conflicts
}

// TestMySQLAcquireWaits holds a commit at its end, after its epochs were
// checked. Its lease has run out, but who takes it must wait for the commit.
func TestMySQLAcquireWaits(t *testing.T) {
	dsn := servicestest.MySQL(t)
	p := startProxy(t, dsn)
	old, heir := openMySQL(t, p.dsn), openMySQL(t, dsn)
	leases, err := old.Acquire(t.Context(), "old", time.Millisecond, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	atEnd, goOn := make(chan struct{}), make(chan struct{})
	p.nextBy(func(uint32) verdict {
		close(atEnd)
		<-goOn
		return pass
	})
	var all sync.WaitGroup
	all.Go(func() {
		if err := old.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{write("t", 1)}}); err != nil {
			t.Errorf("commit: %v", err)
		}
	})
	<-atEnd
	taken := make(chan []store.Lease, 1)
	all.Go(func() {
		leases, err := heir.Acquire(t.Context(), "heir", time.Hour, storetest.Shards)
		if err != nil {
			t.Errorf("acquire: %v", err)
		}
		taken <- leases
	})
	select {
	case leases := <-taken:
		t.Errorf("took %v from under a commit", leases)
		taken <- leases
	case <-time.After(300 * time.Millisecond):
	}
	close(goOn)
	if leases := <-taken; len(leases) != storetest.Shards {
		t.Errorf("took %v", leases)
	}
	if _, err := heir.Load(t.Context(), "t"); err != nil {
		t.Errorf("the heir does not see what was committed before it took over: %v", err)
	}
	all.Wait()
	err = old.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{write("t", 2)}})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("a commit of the old owner: %v", err)
	}
}
