package sqlstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// The tripwires make a batch fail behind its middle: labels are written last.
const (
	sqliteTripwire = `CREATE TRIGGER tripwire BEFORE INSERT ON amends_labels WHEN NEW.value = 'boom'
 BEGIN SELECT RAISE(ABORT, 'tripwire'); END`
	mysqlTripwire = `CREATE TRIGGER tripwire BEFORE INSERT ON amends_labels FOR EACH ROW
 BEGIN IF NEW.value = 'boom' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'tripwire'; END IF; END`
	cutTripwire = `DROP TRIGGER tripwire`
)

// TestRollback: a batch that fails behind its middle leaves nothing behind,
// neither rows nor an open transaction.
func TestRollback(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		st := openAt(t, dir)
		defer closeStore(t, st)
		db, err := sql.Open("sqlite", filepath.Join(dir, "amends.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		testRollback(t, st, db, sqliteTripwire)
	})
	t.Run("mysql", func(t *testing.T) {
		dsn := servicestest.MySQL(t)
		testRollback(t, openMySQL(t, dsn), admin(t, dsn), mysqlTripwire)
	})
}

func testRollback(t *testing.T, st store.Store, db *sql.DB, tripwire string) {
	leases, err := st.Acquire(t.Context(), "owner", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(writes []store.Write) error {
		return st.Commit(t.Context(), store.Batch{Leases: leases, Writes: writes})
	}
	if err := commit([]store.Write{write("old", 1)}); err != nil {
		t.Fatal(err)
	}
	batch := []store.Write{write("old", 2)}
	for i := range 300 { // several statements
		batch = append(batch, write(fmt.Sprintf("new-%d", i), 1))
	}
	batch[300].Record.Labels = map[string]string{"k": "boom"}

	run(t, db, tripwire)
	for range 3 {
		if err := commit(batch); err == nil || !strings.Contains(err.Error(), "tripwire") {
			t.Fatalf("the batch did not fail as it should: %v", err)
		}
		if r, err := st.Load(t.Context(), "old"); err != nil || r.Version != 1 {
			t.Fatalf("version %d of a transaction in a failed batch: %v", r.Version, err)
		}
		if _, err := st.Load(t.Context(), "new-0"); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("a failed batch created a transaction: %v", err)
		}
		if events, err := st.Events(t.Context(), "old", 0, 9); err != nil || len(events) != 1 {
			t.Fatalf("events of a failed batch: %v, %v", events, err)
		}
	}
	// The next batch must not carry the rest of the failed one with it.
	if err := commit([]store.Write{write("other", 1)}); err != nil {
		t.Fatal(err)
	}
	if n := total(t, st); n != 2 {
		t.Fatalf("%d transactions are there, 2 were committed", n)
	}
	run(t, db, cutTripwire)
	if err := commit(batch); err != nil {
		t.Fatal(err)
	}
	if n := total(t, st); n != 302 {
		t.Fatalf("%d transactions are there, 302 were committed", n)
	}
}

func run(t testing.TB, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

func total(t *testing.T, st store.Store) (n int64) {
	t.Helper()
	counts, err := st.Count(t.Context(), store.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range counts {
		n += count
	}
	return n
}
