package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// TestOutbox: the messages of a commit are in the outbox of the same database
// if and only if the commit took effect.
func TestOutbox(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		testOutbox(t, outbox.SQLite,
			func(cfg *sqlstore.Config) (store.Store, error) { return sqlstore.OpenSQLite(t.Context(), dir, cfg) },
			func() *sql.DB {
				db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(dir, "amends.db")))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := db.Close(); err != nil {
						t.Error(err)
					}
				})
				return db
			})
	})
	t.Run("mysql", func(t *testing.T) {
		dsn := servicestest.MySQL(t)
		testOutbox(t, outbox.MySQL,
			func(cfg *sqlstore.Config) (store.Store, error) { return sqlstore.OpenMySQL(t.Context(), dsn, cfg) },
			func() *sql.DB { return admin(t, dsn) })
	})
}

func testOutbox(t *testing.T, d *outbox.Dialect,
	open func(*sqlstore.Config) (store.Store, error), same func() *sql.DB,
) {
	box := outbox.New(d, nil)
	var broken atomic.Bool
	cfg := config(storetest.Shards)
	cfg.Outbox = func(ctx context.Context, tx *sql.Tx, msgs []store.Message) error {
		out := make([]outbox.Message, len(msgs))
		for i, m := range msgs {
			out[i] = outbox.Message{ID: m.ID, Topic: m.Topic, Key: m.Key, Headers: m.Headers, Body: m.Body}
		}
		if err := box.Write(ctx, tx, out...); err != nil {
			return err
		}
		if broken.Load() {
			return errors.New("broken after the messages were written")
		}
		return nil
	}
	st, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, st) })
	db := same()
	if err := outbox.Migrate(t.Context(), db, d); err != nil {
		t.Fatal(err)
	}
	leases, err := st.Acquire(t.Context(), "one", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	batch := func(gids ...string) store.Batch {
		b := store.Batch{Leases: leases}
		for _, gid := range gids {
			w := write(gid, 1)
			w.Messages = []store.Message{
				{ID: gid + "/1", Topic: "life", Key: "k", Headers: map[string]string{"h": "v"}, Body: []byte("first")},
				{ID: gid + "/2", Topic: "life", Key: "k", Body: []byte("second")},
			}
			b.Writes = append(b.Writes, w)
		}
		return b
	}
	if err := st.Commit(t.Context(), batch("a", "b")); err != nil {
		t.Fatal(err)
	}
	want := []string{"a/1", "a/2", "b/1", "b/2"}
	checkLetters(t, db, d, want)

	broken.Store(true)
	if err := st.Commit(t.Context(), batch("c")); err == nil {
		t.Error("a commit succeeds whose messages could not be written")
	}
	broken.Store(false)
	if _, err := st.Load(t.Context(), "c"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the transaction of a failed commit: %v", err)
	}
	stale := batch("d")
	stale.Leases = slices.Clone(leases)
	for i := range stale.Leases {
		stale.Leases[i].Epoch--
	}
	if err := st.Commit(t.Context(), stale); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a stale lease: %v", err)
	}
	checkLetters(t, db, d, want)
}

// checkLetters wants messages in the outbox, in this order: they have one key.
func checkLetters(t *testing.T, db *sql.DB, d *outbox.Dialect, want []string) {
	t.Helper()
	waiting, err := outbox.New(d, nil).Operator(db).Waiting(t.Context(), outbox.WaitingQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range waiting {
		got = append(got, w.Message.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("in the outbox: %v, want %v", got, want)
	}
}

// TestNoOutbox: a store without one refuses messages and writes nothing.
func TestNoOutbox(t *testing.T) {
	st := openAt(t, t.TempDir())
	t.Cleanup(func() { closeStore(t, st) })
	leases, err := st.Acquire(t.Context(), "one", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	w := write("a", 1)
	w.Messages = []store.Message{{ID: "1", Topic: "life"}}
	err = st.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{w}})
	if !errors.Is(err, store.ErrNoOutbox) {
		t.Error(err)
	}
	if _, err := st.Load(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Error(fmt.Errorf("after a refusal: %w", err))
	}
}
