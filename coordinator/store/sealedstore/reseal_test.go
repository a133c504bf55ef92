package sealedstore_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/sealedstore"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/coordinator/store/storetest"
	"github.com/amends-dev/amends/deploy/servicestest"
)

// logged is a log to look at.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// until waits for what happens soon.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for %s", what)
		}
	}
}

// keep replaces a file, as editors and secret managers do.
func keep(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func openKeys(t testing.TB, path string, l *logged) *sealedstore.Keys {
	t.Helper()
	k, err := sealedstore.OpenKeys(path, l.logger())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sealing returns the id of the key that seals now.
func sealing(t testing.TB, st *sealedstore.Store, inner store.Store) string {
	t.Helper()
	gid := fmt.Sprint("probe-", time.Now().UnixNano())
	commit(t, st, write(gid, 1))
	r, err := inner.Load(t.Context(), gid)
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Body[6 : 6+int(r.Body[5])])
}

// TestKeysChange: the file is read again while the store is open, and a file
// that is wrong, missing or treacherous takes nothing away.
func TestKeysChange(t *testing.T) {
	path, l := filepath.Join(t.TempDir(), "keys.json"), &logged{}
	keep(t, path, file("a1"))
	inner := memstore.New(&memstore.Config{Shards: storetest.Shards})
	st := sealedstore.New(inner, openKeys(t, path, l), nil)
	commit(t, st, write("old", 1))

	keep(t, path, file("b2", "a1"))
	until(t, "the new key", func() bool { return sealing(t, st, inner) == "b2" })
	if _, err := st.Load(t.Context(), "old"); err != nil {
		t.Errorf("what the older key sealed: %v", err)
	}
	for want, text := range map[string]string{
		"no JSON":                           "{]",
		"there is none":                     `{"keys": []}`,
		`id \"b2\" has another key`:         strings.Replace(file("c3", "b2"), secret("b2"), secret("x"), 1),
		"no such file":                      "",
		`keys[1]: id \"c3\" is there twice`: file("c3", "c3"),
	} {
		if keep(t, path, text); text == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		until(t, "the log to say "+want, func() bool {
			return sealing(t, st, inner) == "b2" && strings.Contains(l.String(), want)
		})
	}
	keep(t, path, file("c3", "b2", "a1"))
	until(t, "a good file", func() bool { return sealing(t, st, inner) == "c3" })
	for _, id := range []string{"a1", "b2", "c3"} {
		if strings.Contains(l.String(), secret(id)) || strings.Contains(l.String(), secret(id)[:20]) {
			t.Errorf("the log shows key %s", id)
		}
	}
}

// backends are the inner stores whose cells can be written anew.
func backends(t *testing.T, test func(t *testing.T, inner store.Store)) {
	t.Run("SQLite", func(t *testing.T) {
		inner := openSQLite(t, t.TempDir())
		defer inner.Close()
		test(t, inner)
	})
	t.Run("MySQL", func(t *testing.T) { test(t, openMySQL(t)) })
}

// running runs a store beside the test.
func running(t *testing.T, st *sealedstore.Store) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// wantSame checks a transaction against what write made, by a store with only
// some keys.
func wantSame(t *testing.T, st store.Store, gid string, n int64) {
	t.Helper()
	want := write(gid, n)
	got, err := st.Load(t.Context(), gid)
	if err != nil || !bytes.Equal(got.Body, want.Record.Body) || !bytes.Equal(got.Definition, want.Record.Definition) ||
		!bytes.Equal(got.Digest, want.Record.Digest) || !bytes.Equal(got.EventHash, want.Record.EventHash) ||
		got.Reason != want.Record.Reason || got.Version != n {
		t.Errorf("%s: %v, %+v", gid, err, got)
	}
	events, err := st.Events(t.Context(), gid, 0, 100)
	if err != nil || len(events) != int(n) {
		t.Fatalf("%s: %v, %d events", gid, err, len(events))
	}
	for i, ev := range events {
		if w := write(gid, int64(i+1)).Events[0]; !bytes.Equal(ev.Data, w.Data) || !bytes.Equal(ev.Prev, w.Prev) || !bytes.Equal(ev.Hash, w.Hash) {
			t.Errorf("%s: event %d: %+v", gid, i+1, ev)
		}
	}
}

// TestRunRetiresKeys: what is plain or sealed with older keys is sealed with the
// first one, while transitions are being committed; then that is the only key
// that is needed.
func TestRunRetiresKeys(t *testing.T) {
	backends(t, func(t *testing.T, inner store.Store) {
		path, l := filepath.Join(t.TempDir(), "keys.json"), &logged{}
		gid := func(kind string, i int) string { return fmt.Sprintf("%s-%03d", kind, i) }
		const many = 70 // more than a page
		for i := range many {
			commit(t, inner, write(gid("plain", i), 1))
		}
		keep(t, path, file("a1"))
		st := sealedstore.New(inner, openKeys(t, path, l), &sealedstore.Config{Logger: l.logger()})
		for i := range many {
			commit(t, st, write(gid("old", i), 1), write(gid("old", i), 2))
		}
		running(t, st)
		until(t, "plain rows to be sealed", func() bool { return st.Status().Key == "a1" && len(st.Status().Needed) == 0 })

		keep(t, path, file("b2", "a1"))
		for n := int64(3); st.Status().Key != "b2" || len(st.Status().Needed) > 0; n++ { // goes on meanwhile
			commit(t, st, write("busy", n-2))
			time.Sleep(time.Millisecond)
			if n > 20_000 {
				t.Fatalf("not done: %+v\n%s", st.Status(), l)
			}
		}
		if s := st.Status(); s.Unreadable != 0 || s.Done.IsZero() {
			t.Errorf("status: %+v", s)
		}
		if !strings.Contains(l.String(), "the other ones can be taken out of the file") || !strings.Contains(l.String(), "a1:") {
			t.Errorf("log:\n%s", l)
		}
		only := sealedstore.New(inner, parse(t, strings.Replace(file("b2"), "{", `{"sealed_only": true, `, 1)), nil)
		for i := range many {
			wantSame(t, only, gid("plain", i), 1)
			wantSame(t, only, gid("old", i), 2)
		}
		busy, err := only.Load(t.Context(), "busy")
		if err != nil {
			t.Fatal(err)
		}
		if n := min(busy.Version, 100); n > 0 {
			events, err := only.Events(t.Context(), "busy", 0, int(n))
			if err != nil || len(events) != int(n) {
				t.Errorf("%v, %d events", err, len(events))
			}
		}
	})
}

// TestRunKeepsWhatItCannotRead: rows whose key is gone, and damaged ones, stay
// as they are, are counted and named, and stop nothing.
func TestRunKeepsWhatItCannotRead(t *testing.T) {
	inner, l := openSQLite(t, t.TempDir()), &logged{}
	defer inner.Close()
	commit(t, sealedstore.New(inner, keys(t, "gone"), nil), write("lost", 1), write("lost", 2))
	commit(t, sealedstore.New(inner, keys(t, "a1"), nil), write("old", 1))
	commit(t, inner, write("plain", 1))
	st := sealedstore.New(inner, parse(t, strings.Replace(file("b2", "a1"), "{", `{"sealed_only": true, `, 1)),
		&sealedstore.Config{Logger: l.logger()})
	running(t, st)
	until(t, "the end of the look", func() bool { return st.Status().Needed["gone"] > 0 && st.Status().Needed["a1"] == 0 })
	// lost: a row and two events; plain, whom nobody knows: a row and an event.
	if s := st.Status(); s.Key != "b2" || s.Needed["gone"] != 3 || s.Needed[""] != 2 || s.Unreadable != 5 {
		t.Errorf("status: %+v", s)
	}
	for _, want := range []string{"cannot be read", "gone:3", "lost"} {
		if !strings.Contains(l.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, l)
		}
	}
	wantSame(t, sealedstore.New(inner, keys(t, "b2"), nil), "old", 1)
	wantSame(t, sealedstore.New(inner, keys(t, "b2", "gone"), nil), "lost", 2)
	wantSame(t, inner, "plain", 1)
}

// TestMissingKeyStopsNobodyElse: whoever needs a key that is missing is left
// out of what is due, page by page, named in the log, and back with the key.
func TestMissingKeyStopsNobodyElse(t *testing.T) {
	path, l := filepath.Join(t.TempDir(), "keys.json"), &logged{}
	inner := memstore.New(&memstore.Config{Shards: storetest.Shards})
	keep(t, path, file("b2", "a1"))
	both := keys(t, "a1")
	for i := range 6 {
		gid := fmt.Sprint("g", i)
		if i%3 == 2 {
			commit(t, sealedstore.New(inner, keys(t, "b2"), nil), write(gid, 1))
		} else {
			commit(t, sealedstore.New(inner, both, nil), write(gid, 1))
		}
	}
	keep(t, path, file("b2"))
	st := sealedstore.New(inner, openKeys(t, path, l), &sealedstore.Config{Logger: l.logger()})
	due := func(limit int) (gids []string) {
		q := store.DueQuery{Shards: []int{0, 1, 2, 3, 4, 5, 6, 7}, Until: time.Now().AddDate(9, 0, 0), Limit: limit}
		for {
			recs, err := st.Due(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range recs {
				gids = append(gids, r.GID)
			}
			if len(recs) < limit {
				return gids
			}
			last := recs[len(recs)-1]
			q.AfterShard, q.AfterNext, q.AfterGID = last.Shard, last.NextAt, last.GID
		}
	}
	for limit := 1; limit < 8; limit++ {
		if got := fmt.Sprint(due(limit)); got != "[g2 g5]" {
			t.Errorf("pages of %d: %s are due, want [g2 g5]", limit, got)
		}
	}
	if s := l.String(); strings.Count(s, "a key is missing") != 1 || !strings.Contains(s, "key=a1") || !strings.Contains(s, "g0") {
		t.Errorf("log:\n%s", s)
	}
	_, err := st.Load(t.Context(), "g0")
	wantErr(t, err, sealedstore.ErrMissingKey, `"a1"`, `"g0"`)
	keep(t, path, file("b2", "a1"))
	until(t, "the key to be back", func() bool { return len(due(3)) == 6 })
}

func openMySQL(t *testing.T) store.Store {
	t.Helper()
	cfg := &sqlstore.Config{Shards: storetest.Shards, Logger: slog.New(slog.DiscardHandler)}
	st, err := sqlstore.OpenMySQL(t.Context(), servicestest.MySQL(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}
