package outbox

import (
	"slices"
	"testing"
	"time"
)

func TestWindowTrailsGaps(t *testing.T) {
	now := time.Now()
	w := newWindow(time.Minute)
	w.saw([]int64{1, 2, 5, 6}, now)
	w.cursor = 6
	if got := w.floor(); got != 2 {
		t.Errorf("floor behind the gap 3-4: %d, want 2", got)
	}
	w.saw([]int64{7, 9}, now.Add(30*time.Second))
	w.cursor = 9
	w.forget(now.Add(61 * time.Second))
	if got := w.floor(); got != 7 {
		t.Errorf("floor after the first gap's grace time: %d, want 7", got)
	}
	w.forget(now.Add(2 * time.Minute))
	if got := w.floor(); got != 9 {
		t.Errorf("floor without gaps: %d, want 9", got)
	}
	w.held[8] = "k"
	if got := w.floor(); got != 7 {
		t.Errorf("floor behind the held row 8: %d, want 7", got)
	}
}

func TestWindowFindsLateIDs(t *testing.T) {
	w := newWindow(time.Minute)
	w.cursor, w.held[3], w.held[8] = 10, "k", "k"
	if w.late([]int64{3, 8}) {
		t.Error("held rows are not late")
	}
	if !w.late([]int64{3, 5, 8}) || w.cursor != 4 {
		t.Errorf("cursor %d, want it in front of 5", w.cursor)
	}
	if w.held[3] == "" || w.held[8] != "" {
		t.Errorf("held %v: want 3 only, 8 is read again", w.held)
	}
}

func TestWindowHolds(t *testing.T) {
	now := time.Now()
	w := newWindow(time.Minute)
	w.cursor, w.held[4] = 10, "k"
	w.hold("a", 1, now.Add(time.Second))
	w.hold("b", 1, now.Add(time.Minute))
	w.retry(now)
	if !w.blocked("a") || !w.blocked("b") || w.cursor != 10 {
		t.Error("retried before its time")
	}
	w.retry(now.Add(time.Second))
	if w.blocked("a") || !w.blocked("b") || w.cursor != 3 || w.attempts("a") != 1 {
		t.Errorf("a is due: blocked %v, cursor %d, attempts %d", w.blocked("a"), w.cursor, w.attempts("a"))
	}
	if !w.due.Equal(now.Add(time.Minute)) {
		t.Error("b's end is not the next")
	}
	w.sweep()
	if w.attempts("a") != 0 || w.attempts("b") != 1 || w.cursor != 0 {
		t.Error("a sweep drops the holds that met no row, and no others")
	}
	w.resolved("b")
	if w.blocked("b") {
		t.Error("resolved, and still blocked")
	}
}

func TestRuns(t *testing.T) {
	got := runs([]int64{9, 1, 2, 3, 5, 6, 3})
	if want := []idRange{{1, 3}, {5, 6}, {9, 9}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestWindowEndsGaps: an id that is read after all ends its part of a gap, so that nothing is asked about it any more.
func TestWindowEndsGaps(t *testing.T) {
	now := time.Now()
	w := newWindow(time.Minute)
	check := func(after, upTo int64) {
		t.Helper()
		if a, u := w.unsure(); a != after || u != upTo {
			t.Errorf("unsure of (%d, %d], want (%d, %d]; gaps %v", a, u, after, upTo, w.gaps)
		}
	}
	w.saw([]int64{1, 6, 9}, now)
	w.cursor = 9
	check(1, 8)
	w.saw([]int64{1, 3, 6}, now) // 3 was late: 2, 4, 5, 7 and 8 may still come
	check(1, 8)
	w.saw([]int64{2, 8}, now)
	check(3, 7)
	w.saw([]int64{4, 5}, now)
	check(6, 7)
	w.cursor = 6 // a new pass: what is behind the cursor is read anyway
	check(6, 6)
	w.saw([]int64{7}, now)
	w.cursor = 9
	check(0, 0)
	w.saw([]int64{11}, now)
	w.cursor = 11
	check(9, 10)
	w.forget(now.Add(2 * time.Minute))
	check(0, 0)
}

// TestWindowBoundsGaps: where every other id is jumped over, all gaps stay covered, and few are kept in mind.
func TestWindowBoundsGaps(t *testing.T) {
	now := time.Now()
	w := newWindow(time.Minute)
	last := int64(0)
	for page := range 20 {
		ids := make([]int64, 500)
		for i := range ids {
			last += 2
			ids[i] = last
		}
		w.saw(ids, now.Add(time.Duration(page)*time.Second))
		w.cursor = last
	}
	if len(w.gaps) > maxGaps {
		t.Errorf("%d gaps are kept in mind", len(w.gaps))
	}
	for id := int64(1); id < last; id += 2 {
		if !slices.ContainsFunc(w.gaps, func(g gap) bool { return g.from <= id && id <= g.to }) {
			t.Fatalf("nothing tells that %d may come", id)
		}
	}
	w.forget(now.Add(time.Minute + 15*time.Second)) // what was merged stays as long as its youngest part
	if a, _ := w.unsure(); a >= 16*1000 {
		t.Errorf("unsure from %d on: page 16 is within its grace time", a)
	}
}
