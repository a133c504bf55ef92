package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// schemas are versions that databases have, with the statements that make a row
// in each.
var schemas = map[int]string{1: insertFirst, 5: insertFifth}

// upTo returns the dialect as it was with its first migrations.
func upTo(t *testing.T, d *dialect, version int) *dialect {
	t.Helper()
	all, err := readMigrations(d.migrations)
	if err != nil {
		t.Fatal(err)
	}
	old, files := *d, fstest.MapFS{}
	for _, m := range all[:version] {
		files[m.name+".sql"] = &fstest.MapFile{Data: []byte(m.text)}
	}
	old.migrations = files
	return &old
}

const insertOldEvents = `INSERT INTO amends_events (gid, seq, at, type, data, prev, hash) VALUES
 ('old', 1, 5000000, 'started', x'7b7d', x'', x'67'), ('old', 2, 6000000, 'replied', x'ff00', x'67', x'68')`

const insertFifth = `INSERT INTO amends_transactions (gid, shard, namespace, kind, name, state, paused, stalled, waits_for, version, reason,
 created_at, updated_at, next_at, finished_at, event_seq, event_hash, digest, labels, body, definition)
 VALUES ('old', 1, '', 'saga', 'trip', 1, 1, 0, '', 7, 'why', 5000000, 6000000, 7000000, NULL, 2, x'68', x'69', '', x'626f6479', x'646566')`

const insertFirst = `INSERT INTO amends_transactions (gid, shard, kind, name, state, paused, version, reason,
 created_at, updated_at, next_at, finished_at, event_seq, event_hash, digest, labels, body, definition)
 VALUES ('old', 1, 'saga', 'trip', 1, 1, 7, 'why', 5000000, 6000000, 7000000, NULL, 2, x'68', x'69', '', x'626f6479', x'646566')`

// makeOld brings a database to an earlier version of the schema, with a row.
func makeOld(t *testing.T, d *dialect, db *sql.DB, version int) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s := &Store{d: upTo(t, d, version), log: quiet, writer: db}
	if err := s.migrate(t.Context(), db, &Config{Shards: 8, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{schemas[version], insertOldEvents} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// checkMigrated looks at the row of makeOld, and writes to it.
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
	events, err := st.Events(t.Context(), "old", 0, 10)
	if err != nil || len(events) != 2 || string(events[1].Data) != "\xff\x00" || string(events[1].Prev) != "g" {
		t.Fatalf("events after the migration: %+v, %v", events, err)
	}
	got.Version, got.Stalled, got.WaitsFor = 8, true, "banks"
	w := store.Write{Record: got}
	for seq := int64(3); seq <= trailEvents+2; seq++ { // into the row, and behind it again
		w.Events = append(w.Events, store.Event{GID: "old", Seq: seq, At: time.Unix(seq, 0).UTC(), Type: "step",
			Data: []byte(`{"n":1}`), Prev: []byte{byte(seq)}, Hash: []byte{byte(seq)}})
	}
	if err := st.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{w}}); err != nil {
		t.Fatal(err)
	}
	more, err := st.Events(t.Context(), "old", 0, 100)
	if err != nil || !reflect.DeepEqual(more, append(events, w.Events...)) {
		t.Errorf("events of before and now: %+v, %v", more, err)
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

// TestMigrateSQLite: a store of an earlier schema opens with all that it holds.
func TestMigrateSQLite(t *testing.T) {
	for version := range schemas {
		t.Run(fmt.Sprint(version), func(t *testing.T) { testMigrateSQLite(t, version) })
	}
}

func testMigrateSQLite(t *testing.T, version int) {
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
	makeOld(t, d, db, version)
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
	for version := range schemas {
		t.Run(fmt.Sprint(version), func(t *testing.T) { testMigrateMySQL(t, version) })
	}
}

func testMigrateMySQL(t *testing.T, version int) {
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
	makeOld(t, d, db, version)
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
	if _, err := db.ExecContext(t.Context(), `DELETE FROM amends_store_migrations WHERE version > ?`, version); err != nil {
		t.Fatal(err)
	}
	st := reopen()
	defer st.Close()
	checkMigrated(t, st)
	if _, err := db.ExecContext(t.Context(), strings.Replace(insertFifth, "'old'", "'older'", 1)); err == nil {
		t.Error("a coordinator of schema 5 that still runs can write")
	}
}

// TestMigrationOutlastsReadTimeout: a change of a large table is one answer that
// the server takes minutes for.
func TestMigrationOutlastsReadTimeout(t *testing.T) {
	t.Parallel()
	conf, err := mysqlConfig(servicestest.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	conf.ReadTimeout = time.Second
	db, err := mysqlPool(forSchema(conf), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	d, err := mysqlDialect(1 << 24)
	if err != nil {
		t.Fatal(err)
	}
	all, err := readMigrations(d.migrations)
	if err != nil {
		t.Fatal(err)
	}
	slow := upTo(t, d, len(all))
	slow.migrations.(fstest.MapFS)["9999_slow.sql"] = &fstest.MapFile{Data: []byte("DO SLEEP(1.5)")}
	quiet := slog.New(slog.DiscardHandler)
	s := &Store{d: slow, log: quiet, writer: db}
	if err := s.migrate(t.Context(), db, &Config{Shards: 8, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
}
