package sqlstore

import (
	"context"
	"database/sql"
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// firstOnly returns the dialect as it was with its first migration.
func firstOnly(t *testing.T, d *dialect) *dialect {
	t.Helper()
	const name = "0001_store.sql"
	text, err := fs.ReadFile(d.migrations, name)
	if err != nil {
		t.Fatal(err)
	}
	old := *d
	old.migrations = fstest.MapFS{name: {Data: text}}
	return &old
}

const insertFirst = `INSERT INTO amends_transactions (gid, shard, kind, name, state, paused, version, reason,
 created_at, updated_at, next_at, finished_at, event_seq, event_hash, digest, labels, body, definition)
 VALUES ('old', 1, 'saga', 'trip', 1, 1, 7, 'why', 5000000, 6000000, 7000000, NULL, 2, x'68', x'69', '', x'626f6479', x'646566')`

// makeFirst brings a database to the first version of the schema, with a row.
func makeFirst(t *testing.T, d *dialect, db *sql.DB) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s := &Store{d: firstOnly(t, d), log: quiet, writer: db}
	if err := s.migrate(t.Context(), &Config{Shards: 8, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), insertFirst); err != nil {
		t.Fatal(err)
	}
}

// checkMigrated looks at the row of makeFirst, and writes to it.
func checkMigrated(t *testing.T, st store.Store) {
	t.Helper()
	want := store.Record{GID: "old", Shard: 1, Kind: "saga", Name: "trip", State: 1, Paused: true, Version: 7, Reason: "why"}
	got, err := st.Load(t.Context(), "old")
	if err != nil {
		t.Fatal(err)
	}
	if got.Namespace != "" || got.Stalled || got.WaitsFor != "" || got.Version != want.Version || !got.Paused ||
		got.Name != want.Name || string(got.Body) != "body" || string(got.Definition) != "def" || string(got.EventHash) != "h" ||
		!got.CreatedAt.Equal(time.Unix(5, 0)) || !got.NextAt.Equal(time.Unix(7, 0)) || !got.FinishedAt.IsZero() {
		t.Fatalf("after the migration: %+v", got)
	}
	leases, err := st.Acquire(t.Context(), "owner", time.Hour, 8)
	if err != nil {
		t.Fatal(err)
	}
	got.Version, got.Stalled, got.WaitsFor = 8, true, "banks"
	if err := st.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{{Record: got}}}); err != nil {
		t.Fatal(err)
	}
	none, yes := "", true
	for name, q := range map[string]store.Query{
		"all": {}, "namespace": {Namespace: &none}, "stalled": {Stalled: &yes}, "waits for": {WaitsFor: "banks"},
	} {
		if found, err := st.List(t.Context(), q, nil, 10); err != nil || len(found) != 1 {
			t.Errorf("%s: %d found, want 1: %v", name, len(found), err)
		}
	}
	due, err := st.Due(t.Context(), store.DueQuery{Shards: []int{1}, Until: time.Unix(8, 0), Limit: 10})
	if err != nil || len(due) != 1 {
		t.Errorf("%d due, want 1: %v", len(due), err)
	}
}

// TestMigrateSQLite: a store of the first schema opens with all that it holds.
func TestMigrateSQLite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, databaseFile)
	if err := createFile(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	d, err := sqliteDialect()
	if err != nil {
		t.Fatal(err)
	}
	db, err := pool(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	makeFirst(t, d, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := OpenSQLite(t.Context(), dir, &Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	checkMigrated(t, st)
}

// TestMigrateMySQL: the same, also when a process died after any statement of
// a migration and before it was noted.
func TestMigrateMySQL(t *testing.T) {
	dsn := servicestest.MySQL(t)
	conf, err := mysqlConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db, err := mysqlPool(conf, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	d, err := mysqlDialect(1 << 24)
	if err != nil {
		t.Fatal(err)
	}
	makeFirst(t, d, db)
	quiet := &Config{Logger: slog.New(slog.DiscardHandler)}
	reopen := func() store.Store {
		t.Helper()
		st, err := OpenMySQL(context.WithoutCancel(t.Context()), dsn, quiet)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if err := reopen().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `DELETE FROM amends_store_migrations WHERE version > 1`); err != nil {
		t.Fatal(err)
	}
	st := reopen()
	defer st.Close()
	checkMigrated(t, st)
}
