package sqlstore

import (
	"bytes"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// TestMySQLRewrite: what is written anew where it stands is what was asked for.
func TestMySQLRewrite(t *testing.T) {
	s := openInternal(t)
	leases, err := s.Acquire(t.Context(), "owner", time.Hour, DefaultShards)
	if err != nil {
		t.Fatal(err)
	}
	want := store.Record{GID: "t", Version: 1, Body: []byte("old body"), Definition: []byte("old"), CreatedAt: time.Unix(1, 0).UTC(),
		UpdatedAt: time.Unix(2, 0).UTC()}
	if err := s.Commit(t.Context(), store.Batch{Leases: leases, Writes: []store.Write{{Record: want}}}); err != nil {
		t.Fatal(err)
	}
	recs, _, last, err := s.Stale(t.Context(), []byte("new"), "", 10)
	if err != nil || len(recs) != 1 || last != "" || !bytes.Equal(recs[0].Body, want.Body) {
		t.Fatalf("stale: %+v, %q, %v", recs, last, err)
	}
	for _, body := range []string{"new", "new and longer than before"} {
		recs[0].Body, recs[0].Definition = []byte(body), []byte("new")
		if err := s.Rewrite(t.Context(), recs, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(t.Context(), "t"); err != nil || string(got.Body) != body || string(got.Definition) != "new" {
			t.Errorf("written anew: body %q, definition %q: %v", got.Body, got.Definition, err)
		}
	}
	if recs, _, _, err := s.Stale(t.Context(), []byte("new"), "", 10); err != nil || len(recs) != 0 {
		t.Errorf("still stale: %+v, %v", recs, err)
	}
}
