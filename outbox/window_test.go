package outbox

import (
	"fmt"
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

// TestSetApart: the keys with the most held rows are left out of reads, others
// are not, and a key that is due is read again from the beginning.
func TestSetApart(t *testing.T) {
	now := time.Now()
	w := newWindow(time.Minute)
	w.cursor = 100
	w.hold("big", 1, now.Add(time.Hour))
	w.hold("small", 1, now.Add(time.Hour))
	w.hold("\x00id", 1, now.Add(time.Hour))
	for id := int64(1); id <= 100; id++ {
		w.held[id] = "big"
	}
	w.held[7], w.held[8] = "small", "\x00id"
	w.setApart(100)
	if got := w.apart(); len(got) != 1 || got[0] != "big" {
		t.Errorf("apart are %q, want big", got)
	}
	if len(w.held) != 2 || w.held[7] != "small" || w.floor() != 6 {
		t.Errorf("held are %v behind %d, want 7 and 8 behind 6", w.held, w.floor())
	}
	w.hold("big", 2, now)
	w.retry(now.Add(time.Second))
	if w.cursor != 0 || w.apart() != nil {
		t.Errorf("when it is due the cursor is at %d and %q are apart, want 0 and none", w.cursor, w.apart())
	}
	if w.hold("big", 3, now.Add(time.Hour)); len(w.apart()) != 1 {
		t.Error("a key that fails again is not apart any more")
	}

	w = newWindow(time.Minute)
	w.crowd = 3
	w.hold("three", 1, now)
	w.hold("two", 1, now)
	w.cursor, w.held = 9, map[int64]string{1: "three", 2: "three", 3: "three", 4: "two", 5: "two"}
	w.retry(now.Add(time.Second))
	w.hold("three", 2, now.Add(time.Hour))
	w.hold("two", 2, now.Add(time.Hour))
	if got := w.apart(); len(got) != 1 || got[0] != "three" {
		t.Errorf("after another attempt %q are apart, want three", got)
	}

	w = newWindow(time.Minute)
	for id := int64(1); id <= 1000; id++ { // many keys: it is not about single ones
		key := fmt.Sprint("k", id)
		w.hold(key, 1, now.Add(time.Hour))
		w.held[id] = key
	}
	if w.setApart(1000); w.apart() != nil || len(w.held) != 1000 {
		t.Errorf("%d keys are apart, want none of many", len(w.apart()))
	}
}
