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
