package sealedstore_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/sealedstore"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
)

// secret is a key for tests, another one for each id.
func secret(id string) string {
	return base64.StdEncoding.EncodeToString([]byte((id + " " + strings.Repeat("k3y", 32))[:32]))
}

// file is a file of keys with these ids.
func file(ids ...string) string {
	var entries []string
	for _, id := range ids {
		entries = append(entries, fmt.Sprintf(`{"id": %q, "key": %q}`, id, secret(id)))
	}
	return `{"keys": [` + strings.Join(entries, ", ") + `]}`
}

func keys(t testing.TB, ids ...string) *sealedstore.Keys {
	t.Helper()
	return parse(t, file(ids...))
}

func parse(t testing.TB, text string) *sealedstore.Keys {
	t.Helper()
	k, err := sealedstore.ParseKeys([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openSQLite(t testing.TB, dir string) store.Store {
	t.Helper()
	cfg := &sqlstore.Config{Shards: storetest.Shards, Logger: slog.New(slog.DiscardHandler)}
	st, err := sqlstore.OpenSQLite(t.Context(), dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestStoreInMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		st := memstore.New(&memstore.Config{Shards: storetest.Shards})
		k := keys(t, "a")
		return storetest.Backend{
			Open: func() store.Store {
				st = st.Reopen()
				return sealedstore.New(st, k, nil)
			},
			Crash: func() {
				if err := st.Close(); err != nil {
					t.Error(err)
				}
			},
		}
	})
}

// TestStoreSQLite rotates the keys at every opening.
func TestStoreSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		dir, ids := t.TempDir(), []string{"k0"}
		return storetest.Backend{
			Open: func() store.Store {
				ids = append([]string{fmt.Sprint("k", len(ids))}, ids...)
				return sealedstore.New(openSQLite(t, dir), keys(t, ids...), nil)
			},
			Crash: func() {
				next := t.TempDir()
				if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				dir = next
			},
		}
	})
}

// words are what no file may hold, each in a field of its own.
var words = []string{"defi-canary", "body-canary", "dige-canary", "reas-canary", "data-canary", "hash-canary", "prev-canary", "last-canary"}

// write is a transaction's version n with a canary in each field that is sealed.
func write(gid string, n int64) store.Write {
	now := time.Date(2026, 11, 23, 8, 0, int(n), 0, time.UTC)
	return store.Write{
		Record: store.Record{
			GID: gid, Kind: "saga", Name: "transfer", Version: n, State: 1, Labels: map[string]string{"order_id": "A-17"},
			Definition: []byte("defi-canary"), Body: fmt.Appendf(nil, "body-canary %d", n), Digest: []byte("dige-canary"),
			Reason: fmt.Sprint("reas-canary ", n), CreatedAt: now, UpdatedAt: now, NextAt: now, EventSeq: n, EventHash: []byte("last-canary"),
		},
		Events: []store.Event{{
			GID: gid, Seq: n, At: now, Type: "step", Data: fmt.Appendf(nil, `{"text":"data-canary %d"}`, n),
			Prev: []byte("prev-canary"), Hash: []byte("hash-canary"),
		}},
	}
}

// commit writes in a store whose shard 0 is taken for it.
func commit(t testing.TB, st store.Store, writes ...store.Write) {
	t.Helper()
	leases, err := st.Acquire(t.Context(), "owner", time.Hour, storetest.Shards)
	if err != nil {
		t.Fatal(err)
	}
	if len(leases) == 0 {
		if leases, err = st.Renew(t.Context(), "owner", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range writes {
		if err := st.Commit(t.Context(), store.Batch{Leases: leases[:1], Writes: []store.Write{w}}); err != nil {
			t.Fatal(err)
		}
	}
}

// contents is every byte of the files in dir.
func contents(t testing.TB, dir string) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all = append(all, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNothingIsReadableInTheFiles(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		dir := t.TempDir()
		st := openSQLite(t, dir)
		if encrypted {
			st = sealedstore.New(st, keys(t, "key-one"), nil)
		}
		commit(t, st, write("g", 1), write("g", 2), write("g", 3))
		while := contents(t, dir) // with the write-ahead log
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		for when, all := range map[string][]byte{"open": while, "closed": contents(t, dir)} {
			for _, word := range words {
				found := bytes.Contains(all, []byte(word)) || bytes.Contains(all, []byte(base64.StdEncoding.EncodeToString([]byte(word))))
				if found == encrypted { // without keys they are found, so this looks in the right place
					t.Errorf("encrypted %v, %s: %s found: %v", encrypted, when, word, found)
				}
			}
			if !bytes.Contains(all, []byte("A-17")) {
				t.Errorf("%s: the label is not found: it should stay searchable", when)
			}
		}
	}
}

func TestRepeatedBatchesAreSealedAnew(t *testing.T) {
	inner := memstore.New(&memstore.Config{Shards: storetest.Shards})
	st := sealedstore.New(inner, keys(t, "a"), nil)
	commit(t, st, write("g", 1))
	before, err := inner.Load(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	commit(t, st, write("g", 1), write("g", 1))
	after, err := inner.Load(t.Context(), "g")
	if err != nil || !bytes.Equal(before.Body, after.Body) {
		t.Errorf("a repeat changed the row (%v)", err)
	}
	commit(t, st, write("h", 1))
	other, err := inner.Load(t.Context(), "h")
	if err != nil || bytes.Equal(other.Body, before.Body) || len(other.Body) != len(before.Body) {
		t.Errorf("%v: the same body twice:\n%q\n%q", err, before.Body, other.Body)
	}
}

// rotated returns the beginning of the definition's and the body's cells, as the database
// has them.
func rotated(t *testing.T, inner store.Store, gid string) (definition, body string) {
	t.Helper()
	r, err := inner.Load(t.Context(), gid)
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Definition[:8]), string(r.Body[:8])
}

func TestRotation(t *testing.T) {
	inner := memstore.New(&memstore.Config{Shards: storetest.Shards})
	commit(t, inner, write("plain", 1)) // before encryption was turned on
	read := func(st store.Store, gid string, n int64) {
		t.Helper()
		want := write(gid, n).Record
		got, err := st.Load(t.Context(), gid)
		if err != nil || !bytes.Equal(got.Body, want.Body) || !bytes.Equal(got.Definition, want.Definition) || got.Reason != want.Reason {
			t.Fatalf("%s: %v, %+v", gid, err, got)
		}
		events, err := st.Events(t.Context(), gid, 0, 10)
		if err != nil || len(events) != int(n) || !bytes.Equal(events[0].Data, write(gid, 1).Events[0].Data) {
			t.Fatalf("%s: %v, %+v", gid, err, events)
		}
	}
	first := sealedstore.New(inner, keys(t, "a1"), nil)
	read(first, "plain", 1)
	commit(t, first, write("plain", 2), write("old", 1))
	read(first, "plain", 2)

	second := sealedstore.New(inner, keys(t, "b2", "a1"), nil)
	read(second, "old", 1)
	commit(t, second, write("old", 2), write("new", 1))
	read(second, "old", 2)
	if definition, body := rotated(t, inner, "old"); definition != "\xffAMS1\x02a1" || body != "\xffAMS1\x02b2" {
		t.Errorf("the definition begins with %q, the body with %q", definition, body)
	}
	third := sealedstore.New(inner, keys(t, "b2"), nil)
	read(third, "new", 1)
	_, err := third.Load(t.Context(), "old")
	wantErr(t, err, sealedstore.ErrMissingKey, `"a1"`, `"old"`)
	_, err = third.Events(t.Context(), "old", 0, 10)
	wantErr(t, err, sealedstore.ErrMissingKey, `"a1"`)
	if listed, err := third.List(t.Context(), store.Query{}, nil, 10); err != nil || len(listed) != 3 {
		t.Errorf("a list is not to end at what cannot be read: %v, %+v", err, listed)
	}

	strict := sealedstore.New(inner, parse(t, strings.Replace(file("b2", "a1"), "{", `{"sealed_only": true, `, 1)), nil)
	read(strict, "old", 2)
	_, err = strict.Load(t.Context(), "plain") // its definition was never written again
	wantErr(t, err, sealedstore.ErrPlain, `"plain"`, "definition")
}

func TestWithoutKeys(t *testing.T) {
	inner := memstore.New(&memstore.Config{Shards: storetest.Shards})
	commit(t, inner, write("plain", 1))
	for _, k := range []*sealedstore.Keys{nil, {}} {
		st := sealedstore.New(inner, k, nil)
		if r, err := st.Load(t.Context(), "plain"); err != nil || string(r.Body) != "body-canary 1" {
			t.Errorf("%v: %q", err, r.Body)
		}
		wantErr(t, st.Commit(t.Context(), store.Batch{Writes: []store.Write{write("g", 1)}}), sealedstore.ErrMissingKey)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, sealed := range []bool{false, true} {
		b.Run(fmt.Sprintf("sealed=%v", sealed), func(b *testing.B) {
			storetest.Benchmark(b, func(b *testing.B) store.Store {
				st := openSQLite(b, b.TempDir())
				if sealed {
					st = sealedstore.New(st, keys(b, "a"), nil)
				}
				return st
			})
		})
	}
}
