// Package storetest is the suite that every store passes: what package store
// promises, tried through the interface alone, with crashes, lost replies,
// several owners and random workloads that are compared with a plain model.
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Backend { … })
//	}
package storetest

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// Shards is the number of shards that a store under test is created with.
const Shards = 8

// Backend is one database under test, empty at first, with Shards shards.
type Backend struct {
	// Open opens it, and opens the same data again after Close or Crash. It
	// fails the test when it cannot. The suite closes what it opens.
	Open func() store.Store
	// Crash leaves the open store as a killed process would, without Close.
	// What was acknowledged must be there at the next Open.
	Crash func()
}

// Run runs the suite. open is called once per test, with that test.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, open(t))
			c.run(f)
		})
	}
}

type testCase struct {
	name string
	run  func(f *fixture)
}

func cases() []testCase {
	var all []testCase
	for _, group := range [][]testCase{
		recordCases(), leaseCases(), memberCases(), listCases(), dueCases(), historyCases(), faultCases(), modelCases(),
	} {
		all = append(all, group...)
	}
	return all
}

// fixture is a test with an open store whose shards all belong to "owner".
type fixture struct {
	*testing.T
	ctx    context.Context
	b      Backend
	st     store.Store
	leases map[int]store.Lease
}

func newFixture(t *testing.T, b Backend) *fixture {
	f := &fixture{T: t, ctx: t.Context(), b: b}
	f.open()
	t.Cleanup(func() {
		if err := f.st.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// open opens the store and takes its shards, waiting for old leases to end.
func (f *fixture) open() {
	f.Helper()
	f.st = f.b.Open()
	f.leases = make(map[int]store.Lease, Shards)
	f.eventually("all shards acquired", func() bool {
		f.take("owner", time.Hour)
		return len(f.leases) == Shards
	})
}

func (f *fixture) take(owner string, ttl time.Duration) []store.Lease {
	f.Helper()
	taken, err := f.st.Acquire(f.ctx, owner, ttl, Shards)
	f.ok(err)
	for _, l := range taken {
		f.leases[l.Shard] = l
	}
	return taken
}

// crash abandons the store and opens it again. Leases of the dead owner are
// given back first: a store that keeps them would make the suite wait.
func (f *fixture) crash() {
	f.Helper()
	f.ok(f.st.Release(f.ctx, "owner"))
	f.b.Crash()
	f.open()
}

// batch makes a batch of writes with the leases that they need.
func (f *fixture) batch(writes ...store.Write) store.Batch {
	b := store.Batch{Writes: writes}
	seen := make(map[int]bool)
	for _, w := range writes {
		if shard := w.Record.Shard; !seen[shard] {
			seen[shard] = true
			b.Leases = append(b.Leases, f.leases[shard])
		}
	}
	return b
}

func (f *fixture) commit(writes ...store.Write) {
	f.Helper()
	f.ok(f.st.Commit(f.ctx, f.batch(writes...)))
}

func (f *fixture) load(gid string) store.Record {
	f.Helper()
	r, err := f.st.Load(f.ctx, gid)
	f.ok(err)
	return r
}

func (f *fixture) events(gid string) []store.Event {
	f.Helper()
	events, err := f.st.Events(f.ctx, gid, 0, 1000)
	f.ok(err)
	return events
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// same fails the test when got is not want, to the last byte.
func same[T any](f *fixture, what string, got, want T) {
	f.Helper()
	if !reflect.DeepEqual(got, want) {
		f.Fatalf("%s:\n%s", what, difference(reflect.ValueOf(got), reflect.ValueOf(want)))
	}
}

// difference shows two values, or where two lists part.
func difference(got, want reflect.Value) string {
	if got.Kind() != reflect.Slice || got.Type().Elem().Kind() == reflect.Uint8 {
		return fmt.Sprintf(" got %.3000s\nwant %.3000s", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	}
	for i := range min(got.Len(), want.Len()) {
		if !reflect.DeepEqual(got.Index(i).Interface(), want.Index(i).Interface()) {
			return fmt.Sprintf("%d and %d elements, number %d:\n%s",
				got.Len(), want.Len(), i, difference(got.Index(i), want.Index(i)))
		}
	}
	return fmt.Sprintf("%d and %d elements, equal as far as they go", got.Len(), want.Len())
}

// eventually polls cond for at most ten seconds.
func (f *fixture) eventually(what string, cond func() bool) {
	f.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			f.Fatalf("%s: not within 10 s", what)
		}
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
}

// day is when the suite's transactions were made.
var day = time.Date(2026, 11, 23, 8, 0, 0, 123456000, time.UTC)

func at(seconds int) time.Time { return day.Add(time.Duration(seconds) * time.Second) }

func shardOf(gid string) int {
	sum := 0
	for i := range len(gid) {
		sum = sum*31 + int(gid[i])
	}
	return (sum%Shards + Shards) % Shards
}

// create makes the first write of a transaction: due at once, one event.
func create(gid string) store.Write {
	return store.Write{
		Record: store.Record{
			GID: gid, Shard: shardOf(gid), Kind: "saga", Name: "transfer", State: 1, Version: 1,
			Definition: []byte("definition of " + gid), Body: []byte("body 1"), Digest: []byte("digest of " + gid),
			CreatedAt: day, UpdatedAt: day, NextAt: day, EventSeq: 1, EventHash: []byte("hash 1"),
		},
		Events: []store.Event{event(gid, 1)},
	}
}

// next makes the write that follows w, with one event more.
func next(w store.Write) store.Write {
	r := w.Record
	r.Version++
	r.EventSeq++
	r.Body = fmt.Appendf(nil, "body %d", r.Version)
	r.EventHash = fmt.Appendf(nil, "hash %d", r.EventSeq)
	r.UpdatedAt = r.UpdatedAt.Add(time.Second)
	return store.Write{Record: r, Events: []store.Event{event(r.GID, r.EventSeq)}}
}

// finish makes the write that follows w and ends the transaction.
func finish(w store.Write, state uint8, when time.Time) store.Write {
	w = next(w)
	w.Record.State, w.Record.FinishedAt, w.Record.NextAt = state, when, time.Time{}
	return w
}

func event(gid string, seq int64) store.Event {
	ev := store.Event{
		GID: gid, Seq: seq, At: at(int(seq)), Type: "step",
		Data: fmt.Appendf(nil, `{"n":%d}`, seq), Hash: fmt.Appendf(nil, "hash %d", seq),
	}
	if seq > 1 {
		ev.Prev = fmt.Appendf(nil, "hash %d", seq-1)
	}
	return ev
}
