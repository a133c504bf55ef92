package sqlstore_test

import (
	"log/slog"
	"os"
	"testing"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
)

func openAt(t testing.TB, dir string) store.Store {
	t.Helper()
	st, err := sqlstore.OpenSQLite(t.Context(), dir, config(storetest.Shards))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func config(shards int) *sqlstore.Config {
	return &sqlstore.Config{Shards: shards, Logger: slog.New(slog.DiscardHandler)}
}

// backend crashes by copying the files under the open store, as a machine that
// stops at that moment leaves them, and going on with the copy.
func backend(t *testing.T) storetest.Backend {
	dir := t.TempDir()
	return storetest.Backend{
		Open: func() store.Store { return openAt(t, dir) },
		Crash: func() {
			next := t.TempDir()
			if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			dir = next
		},
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, backend)
}

func BenchmarkCommit(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) store.Store { return openAt(b, b.TempDir()) })
}
