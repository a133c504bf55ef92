package sqlstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// single is a batch of one write under one lease.
func single(l store.Lease, gid string, version int64) store.Batch {
	at := time.UnixMicro(version).UTC()
	return store.Batch{Leases: []store.Lease{l}, Writes: []store.Write{{
		Record: store.Record{GID: gid, Shard: l.Shard, Version: version, CreatedAt: at, UpdatedAt: at, NextAt: at,
			EventSeq: version, Body: fmt.Appendf(nil, "body %d", version)},
		Events: []store.Event{{GID: gid, Seq: version, At: at, Type: "step", Data: []byte(`{}`)}},
	}}}
}

// TestMySQLAtOnce: what one statement commits, and what it leaves to others.
func TestMySQLAtOnce(t *testing.T) {
	s := openInternal(t)
	leases, err := s.Acquire(t.Context(), "owner", time.Hour, DefaultShards)
	if err != nil {
		t.Fatal(err)
	}
	l := leases[7]
	check := func(what string, b store.Batch, atOnce bool, want int64) {
		t.Helper()
		r, err := collect(b.Writes)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.commitAtOnce(t.Context(), &b, &r); got != atOnce {
			t.Errorf("%s: committed at once: %t, want %t", what, got, atOnce)
		}
		if err := s.Commit(t.Context(), b); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		rec := b.Writes[0].Record
		got, err := s.Load(t.Context(), rec.GID)
		if err != nil || got.Version != want || string(got.Body) != fmt.Sprintf("body %d", want) {
			t.Errorf("%s: version %d, body %.20q, want %d: %v", what, got.Version, got.Body, want, err)
		}
		events, err := s.Events(t.Context(), rec.GID, 0, 99)
		if err != nil || int64(len(events)) != want {
			t.Errorf("%s: %d events of %d versions: %v", what, len(events), want, err)
		}
	}
	check("the first under its lease", single(l, "a", 1), false, 1)
	check("a start", single(l, "b", 1), true, 1)
	check("a start again", single(l, "b", 1), false, 1)
	check("the next", single(l, "b", 2), true, 2)
	check("one before", single(l, "b", 1), false, 2)
	check("another shard", single(leases[8], "c", 1), false, 1)
	check("many leases", store.Batch{Leases: leases[7:9], Writes: single(l, "b", 3).Writes}, false, 3)
	labelled := single(l, "labelled", 1)
	labelled.Writes[0].Record.Labels = map[string]string{"k": "v"}
	check("with a label", labelled, false, 1)
	long := single(l, "long", 1)
	long.Writes[0].Events[0].Data = []byte(`{"text":"` + strings.Repeat("x", trailLine) + `"}`)
	check("with a long event", long, false, 1)
	large := single(l, "large", 1)
	large.Writes[0].Record.Definition = make([]byte, maxOnce)
	check("with a large definition", large, false, 1)
	check("with a small one", single(l, "large", 2), true, 2)
	checkTurns(t, s, l)
}

// checkTurns: a fence ends the turn, another owner's epoch all of them.
func checkTurns(t *testing.T, s *Store, l store.Lease) {
	t.Helper()
	late := func(what, gid string) func() {
		b := single(l, gid, 1)
		r, err := collect(b.Writes)
		if err != nil {
			t.Fatal(err)
		}
		turn, known := s.turns.of(l)
		args := append(bindRecord(nil, &b.Writes[0].Record, r.json[0], r.trails[0]), l.Shard, l.Epoch, turn)
		return func() {
			t.Helper()
			res, err := s.once.ExecContext(t.Context(), args...)
			if err != nil || !known {
				t.Fatalf("%s: %v, the turn was known: %t", what, err, known)
			}
			if n, err := res.RowsAffected(); err != nil || n != 0 {
				t.Errorf("%s: a statement that arrives late affects %d rows: %v", what, n, err)
			}
			if _, err := s.Load(t.Context(), gid); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	arrives := late("behind a fence", "late-1")
	if err := s.Commit(t.Context(), store.Batch{Leases: []store.Lease{l}}); err != nil {
		t.Fatal(err)
	}
	arrives()
	arrives = late("behind another owner", "late-2")
	if err := s.Release(t.Context(), "owner"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), "heir", time.Hour, DefaultShards); err != nil {
		t.Fatal(err)
	}
	arrives()
	var lost *store.ConflictError
	if err := s.Commit(t.Context(), single(l, "late-2", 1)); !errors.As(err, &lost) || lost.Shards[0] != l.Shard {
		t.Errorf("a commit of the owner before: %v", err)
	}
}
