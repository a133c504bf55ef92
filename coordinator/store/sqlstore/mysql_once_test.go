package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// one is a batch of one write under one lease.
func one(l store.Lease, gid string, version int64) store.Batch {
	w := write(gid, version)
	w.Record.Shard = l.Shard
	return store.Batch{Leases: []store.Lease{l}, Writes: []store.Write{w}}
}

// warm takes the shards, and makes commits of one statement possible in the
// first of them, whose lease it returns.
func warm(t *testing.T, st store.Store, ttl time.Duration) store.Lease {
	t.Helper()
	leases, err := st.Acquire(t.Context(), "owner", ttl, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Commit(t.Context(), one(leases[0], "warm", 1)); err != nil {
		t.Fatal(err)
	}
	return leases[0]
}

// TestMySQLLostAtOnce lets a commit of one statement get lost, before or after
// the server executed it: it is there once.
func TestMySQLLostAtOnce(t *testing.T) {
	dsn := servicestest.MySQL(t)
	p, db := startProxy(t, dsn), admin(t, dsn)
	st, direct := openMySQL(t, p.dsn), openMySQL(t, dsn)
	lease := warm(t, st, time.Hour)
	version := int64(0)
	for name, fault := range faultyCommits(t, db) {
		for range 2 {
			version++
			var met atomic.Bool
			p.nextBy(func(connection uint32) verdict {
				met.Store(true)
				return fault(connection)
			})
			if err := st.Commit(t.Context(), one(lease, onceGID, version)); err != nil || !met.Load() {
				t.Fatalf("%s: version %d: %v; met the fault: %t", name, version, err, met.Load())
			}
			if r, err := direct.Load(t.Context(), onceGID); err != nil || r.Version != version {
				t.Fatalf("%s: version %d, want %d: %v", name, r.Version, version, err)
			}
			events, err := direct.Events(t.Context(), onceGID, 0, 99)
			if err != nil || int64(len(events)) != version {
				t.Fatalf("%s: %d events of %d versions: %v", name, len(events), version, err)
			}
		}
	}
}

// TestMySQLFenceAtOnce gives up a commit of one statement before the server has
// seen it. It arrives behind a later commit under the same lease, and must not
// take effect any more: whoever made that one has looked what became of it.
func TestMySQLFenceAtOnce(t *testing.T) {
	dsn := servicestest.MySQL(t)
	p, db := startProxy(t, dsn), admin(t, dsn)
	st, other := openMySQL(t, p.dsn), openMySQL(t, dsn)
	lease := warm(t, st, time.Hour)
	nothing := store.Batch{Leases: []store.Lease{lease}}
	for name, fence := range map[string]func(ctx context.Context) error{
		"nothing":                   func(ctx context.Context) error { return st.Commit(ctx, nothing) },
		"another transaction":       func(ctx context.Context) error { return st.Commit(ctx, one(lease, "another", 1)) },
		"nothing, by another one":   func(ctx context.Context) error { return other.Commit(ctx, nothing) },
		"something, by another one": func(ctx context.Context) error { return other.Commit(ctx, one(lease, "foreign", 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := st.Commit(t.Context(), one(lease, "warm", 2)); err != nil { // the turn is known again
				t.Fatal(err)
			}
			late := holdCommit(t, p, func(ctx context.Context) error { return st.Commit(ctx, one(lease, onceGID, 1)) })
			if err := fence(t.Context()); err != nil {
				t.Fatal(err)
			}
			late.arrive()
			const gone = `SELECT COUNT(*) = 0 FROM information_schema.processlist WHERE id = ?`
			eventually(t, "the late statement's connection has ended", func() (done bool) {
				if err := db.QueryRow(gone, late.connection).Scan(&done); err != nil {
					t.Fatal(err)
				}
				return done
			})
			if _, err := other.Load(t.Context(), onceGID); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a commit took effect behind its fence: %v", err)
			}
		})
	}
	if err := st.Commit(t.Context(), one(lease, onceGID, 1)); err != nil {
		t.Error(err)
	}
}

// heldCommit is one that was given up on its way.
type heldCommit struct {
	connection uint32
	arrive     func() // lets the server have it
}

func holdCommit(t *testing.T, p *proxy, commit func(ctx context.Context) error) *heldCommit {
	t.Helper()
	h := &heldCommit{}
	atEnd, goOn := make(chan struct{}), make(chan struct{})
	p.nextBy(func(connection uint32) verdict {
		h.connection = connection
		close(atEnd)
		<-goOn
		return pass
	})
	var once sync.Once
	h.arrive = func() { once.Do(func() { close(goOn) }) }
	t.Cleanup(h.arrive)
	ctx, giveUp := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if err := commit(ctx); err == nil {
			t.Error("a commit that was given up succeeded")
		}
	})
	<-atEnd
	giveUp()
	all.Wait()
	return h
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + ": not within a minute")
		}
	}
}

// TestMySQLAcquireWaitsAtOnce: who takes a shard over waits for a commit of one
// statement that has found its lease, and then sees it.
func TestMySQLAcquireWaitsAtOnce(t *testing.T) {
	dsn := servicestest.MySQL(t)
	db := admin(t, dsn)
	old, heir := openMySQL(t, dsn), openMySQL(t, dsn)
	lease := warm(t, old, time.Millisecond)
	// The commit stops at the row, behind the lease.
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `UPDATE amends_transactions SET version = version WHERE gid = 'warm'`); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if err := old.Commit(t.Context(), one(lease, "warm", 2)); err != nil {
			t.Errorf("commit: %v", err)
		}
	})
	const waits = `SELECT COUNT(*) > 0 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'
 AND trx_mysql_thread_id IN (SELECT id FROM information_schema.processlist WHERE db = DATABASE())`
	eventually(t, "the commit waits", func() (done bool) {
		if err := db.QueryRow(waits).Scan(&done); err != nil {
			t.Fatal(err)
		}
		return done
	})
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
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	if leases := <-taken; len(leases) != storetest.Shards {
		t.Errorf("took %v", leases)
	}
	if r, err := heir.Load(t.Context(), "warm"); err != nil || r.Version != 2 {
		t.Errorf("the heir does not see what was committed before it took over: version %d, %v", r.Version, err)
	}
	all.Wait()
	err = old.Commit(t.Context(), one(lease, "warm", 3))
	var lost *store.ConflictError
	if !errors.As(err, &lost) || fmt.Sprint(lost.Shards) != fmt.Sprint([]int{lease.Shard}) {
		t.Errorf("a commit of the old owner: %v", err)
	}
	if r, err := heir.Load(t.Context(), "warm"); err != nil || r.Version != 2 {
		t.Errorf("version %d behind a commit of the old owner: %v", r.Version, err)
	}
}
