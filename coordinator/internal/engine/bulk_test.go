package engine

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

func bulkOf(id string, v amendsv1.Verb, rate float64) Bulk {
	none := ""
	return Bulk{ID: wire.BulkKey("", id), Verb: v, Filter: "unfinished = true", Rate: rate,
		Query: store.Query{Unfinished: true, Namespace: &none}, Reason: "outage", Actor: "alice"}
}

// progress is what the store has of a bulk.
func progress(t *testing.T, r *running, st store.Store, id string) (txn.State, BulkProgress) {
	t.Helper()
	rec, err := st.Load(t.Context(), wire.BulkKey("", id))
	if err != nil {
		t.Fatal(err)
	}
	b, p, err := r.BulkOf(rec)
	if err != nil || b.Actor != "alice" || b.Filter != "unfinished = true" {
		t.Fatalf("bulk %+v, %v", b, err)
	}
	return txn.State(rec.State), p
}

// stuckSagas starts n whose step b is tried every hour.
func stuckSagas(r *running, n int) {
	for i := range n {
		r.startSaga(fmt.Sprintf("g%03d", i), steps(3, func(d *saga.Definition) {
			d.Steps[1].Retry = txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}
		}))
	}
}

// TestBulk acts on everything that its query selects, at its rate, over a crash
// in the middle, once each.
func TestBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		first := &faulty{Store: st}
		r := launch(t, first, nil, unknownB)
		stuckSagas(r, 250)
		time.Sleep(10 * time.Second)
		for range 2 { // the second is the same
			if _, _, err := r.StartBulk(t.Context(), bulkOf("b1", pauseIt, 50)); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := r.StartBulk(t.Context(), bulkOf("b1", abort, 50)); !errors.Is(err, amendsv1.ErrRequestConflict) {
			t.Errorf("another bulk under the id: %v", err)
		}
		time.Sleep(2500 * time.Millisecond)
		first.cut.Store(true)
		_ = r.end()
		paused := func() (n int) {
			yes := true
			found, _ := st.List(t.Context(), store.Query{Paused: &yes}, nil, 1000)
			return len(found)
		}
		if n := paused(); n < 100 || n > 130 {
			t.Errorf("%d are paused after 2.5 s at 50/s", n)
		}
		r = launch(t, st, nil, unknownB)
		time.Sleep(2 * time.Minute)
		state, p := progress(t, r, st, "b1")
		if state != txn.Committed || p.Acted != 250 || p.Failed+p.Skipped != 0 || paused() != 250 {
			t.Errorf("the bulk is %v: %+v; %d are paused, want 250", state, p, paused())
		}
		for i := range 250 {
			if got := trailOf(t, st, fmt.Sprintf("g%03d", i)); got != "started replied replied pause" {
				t.Fatalf("g%03d: trail %q", i, got)
			}
		}
		checkTrail(t, st, wire.BulkKey("", "b1"))
		if _, err := r.Act(t.Context(), Command{Verb: abort, GID: wire.BulkKey("", "b1")}); !errors.Is(err, amendsv1.ErrNotFound) {
			t.Errorf("a bulk takes a verb: %v", err)
		}
	})
}

// TestCancelBulk stops it; what it skips is counted.
func TestCancelBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, unknownB)
		stuckSagas(r, 100)
		r.mustAct(Command{Verb: pauseIt, GID: "g099"})
		if _, _, err := r.StartBulk(t.Context(), bulkOf("b2", pauseIt, 10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3500 * time.Millisecond)
		for range 2 {
			if _, err := r.CancelBulk(t.Context(), wire.BulkKey("", "b2"), "bob", "enough"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		state, p := progress(t, r, st, "b2")
		if n := p.Acted + p.Skipped; state != txn.RolledBack || n < 20 || n > 50 {
			t.Errorf("the bulk is %v: %+v, want it cancelled after about 35", state, p)
		}
		if _, err := r.CancelBulk(t.Context(), "g001", "bob", ""); !errors.Is(err, amendsv1.ErrNotFound) {
			t.Errorf("cancelling a transaction: %v", err)
		}
	})
}

// TestRates are of the last minute, by namespace.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, ok)
		for i := range 120 {
			r.startSaga(wire.Key([]string{"", "blue"}[i%2], fmt.Sprint(i)), steps(1))
		}
		synctest.Wait()
		for _, ns := range []string{"", "blue"} {
			if s, c, b := r.Rates(ns); s != 1 || c != 1 || b != 0 {
				t.Errorf("rates of %q: %v %v %v, want 1 1 0", ns, s, c, b)
			}
		}
		time.Sleep(2 * time.Minute)
		if s, c, _ := r.Rates(""); s+c != 0 {
			t.Errorf("rates after two minutes: %v %v", s, c)
		}
	})
}
