package engine

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/saga/txn"
)

// TestClusterOnDatabases: three engines on a real database, under load: one
// comes late, one is killed, one drains. Nothing is lost.
func TestClusterOnDatabases(t *testing.T) {
	quiet := &sqlstore.Config{Shards: 64, Logger: slog.New(slog.DiscardHandler)}
	for name, open := range map[string]func(t *testing.T) (store.Store, error){
		"SQLite": func(t *testing.T) (store.Store, error) { return sqlstore.OpenSQLite(t.Context(), t.TempDir(), quiet) },
		"MySQL": func(t *testing.T) (store.Store, error) {
			return sqlstore.OpenMySQL(t.Context(), servicestest.MySQL(t), quiet)
		},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = st.Close() }) // the test's own; its file goes, too
			clusterOn(t, st)
		})
	}
}

func clusterOn(t *testing.T, st store.Store) {
	b := newBand(t, st, slowly)
	cfg := Config{LeaseTTL: 1200 * time.Millisecond}
	b.join("a", cfg)
	b.join("b", cfg)
	var clients sync.WaitGroup
	var stop atomic.Bool
	var total atomic.Int64
	for c := range 4 {
		clients.Go(func() {
			for i := 0; !stop.Load(); i++ {
				gid := fmt.Sprintf("g%d-%d", c, i)
				b.start(gid, steps(2))
				if got := b.ends(gid); got != txn.Committed {
					t.Errorf("%s is %v", gid, got)
				}
				total.Add(1)
			}
		})
	}
	b.until("even shares of two", func() bool { return b.even(2) })
	b.join("c", cfg)
	b.until("even shares of three", func() bool { return b.even(3) })
	b.players[0].kill()
	b.until("even shares of those who live", func() bool { return b.even(2) })
	if err := b.players[1].Drain(t.Context()); err != nil || b.shares()["b"] > 0 {
		t.Errorf("drain: %v, shares %v", err, b.shares())
	}
	stop.Store(true)
	clients.Wait()
	if total.Load() == 0 {
		t.Error("no saga has ended")
	}
}
