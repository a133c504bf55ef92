package sqlstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
)

func TestOpenRefuses(t *testing.T) {
	inUse := t.TempDir()
	defer closeStore(t, openAt(t, inUse))
	file := func(content string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "amends.db"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	noDir := filepath.Join(file(""), "amends.db")
	for name, c := range map[string]struct {
		dir    string
		shards int
		want   []string
	}{
		"no directory":         {"", 0, []string{"dir is empty"}},
		"in use":               {inUse, 0, []string{inUse, "in use by another process"}},
		"negative shards":      {t.TempDir(), -1, []string{"Shards is -1"}},
		"not a database":       {file(strings.Repeat("hello, world\n", 999)), 0, []string{"amends.db", "not a SQLite database"}},
		"a short file":         {file("SQLite"), 0, []string{"amends.db", "damaged or not"}},
		"another program":      {foreign(t), 0, []string{"amends.db", "another program"}},
		"a newer schema":       {altered(t, `INSERT INTO amends_store_migrations VALUES (99, 'later', 0)`), 0, []string{"version 99", "newer amends"}},
		"damaged":              {damaged(t), 0, []string{"damaged", "backup"}},
		"file for a directory": {noDir, 0, []string{"data directory", "amends.db"}},
	} {
		st, err := sqlstore.OpenSQLite(t.Context(), c.dir, config(c.shards))
		if err == nil {
			closeStore(t, st)
			t.Errorf("%s: was opened", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v: does not say %q", name, err, want)
			}
		}
		if errors.Is(err, store.ErrInUse) != (name == "in use") {
			t.Errorf("%s: %v: errors.Is ErrInUse is wrong", name, err)
		}
	}
}

func closeStore(t testing.TB, st store.Store) {
	t.Helper()
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

func execIn(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "amends.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func foreign(t *testing.T) string {
	dir := t.TempDir()
	execIn(t, dir, `CREATE TABLE photos (id INTEGER)`)
	return dir
}

func altered(t *testing.T, statement string) string {
	dir := t.TempDir()
	closeStore(t, openAt(t, dir))
	execIn(t, dir, statement)
	return dir
}

// damaged keeps the header, with our mark, and scribbles over the rest.
func damaged(t *testing.T) string {
	dir := altered(t, `SELECT 1`)
	path := filepath.Join(dir, "amends.db")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 100; i < len(content); i++ {
		content[i] = byte(i)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestAwkwardPath: the path goes into a URI, and must come out of it again.
func TestAwkwardPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "100% of?mode=ro#1 &ünïcode", "deep")
	closeStore(t, openAt(t, dir))
	if _, err := os.Stat(filepath.Join(dir, "amends.db")); err != nil {
		t.Fatal(err)
	}
	closeStore(t, openAt(t, dir))
}

// TestOpenEndsLeases: a restart after kill -9 does not wait for a lease time.
func TestOpenEndsLeases(t *testing.T) {
	b := backend(t)
	st := b.Open()
	before, err := st.Acquire(t.Context(), "dead", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	b.Crash()
	closeStore(t, st)
	st = b.Open()
	defer func() { closeStore(t, st) }()
	if held, err := st.Renew(t.Context(), "dead", time.Hour); err != nil || len(held) != 0 {
		t.Fatalf("the dead still hold %v: %v", held, err)
	}
	after, err := st.Acquire(t.Context(), "alive", time.Hour, storetest.Shards)
	if err != nil || len(after) != storetest.Shards || after[0].Epoch <= before[0].Epoch {
		t.Fatalf("acquired %v after %v: %v", after, before, err)
	}
}

// TestShardsAreFixed: the number of shards is that of the creation.
func TestShardsAreFixed(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, openAt(t, dir))
	st, err := sqlstore.OpenSQLite(t.Context(), dir, config(77))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, st)
	if n, err := st.Shards(t.Context()); err != nil || n != storetest.Shards {
		t.Fatalf("%d shards: %v", n, err)
	}
}

// TestSameTranscript runs the same workload on memory, SQLite and MySQL.
func TestSameTranscript(t *testing.T) {
	for seed := uint64(1); seed <= 2; seed++ {
		st := memstore.New(&memstore.Config{Shards: storetest.Shards})
		inMemory := storetest.Transcript(t, storetest.Backend{Open: func() store.Store { return st }}, seed, 250)
		for name, b := range map[string]func(t *testing.T) storetest.Backend{"sqlite": backend, "mysql": mysqlBackend} {
			t.Run(fmt.Sprintf("%s seed %d", name, seed), func(t *testing.T) {
				inSQL := storetest.Transcript(t, b(t), seed, 250)
				if inMemory != inSQL {
					t.Errorf("the transcripts differ:\n%.2000s\n----\n%.2000s", inMemory, inSQL)
				}
			})
		}
		if len(inMemory) < 1000 {
			t.Errorf("seed %d: the transcript is short: %s", seed, inMemory)
		}
	}
}
