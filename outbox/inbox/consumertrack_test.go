package inbox

import (
	"context"
	"testing"
	"time"
)

func TestBackPressure(t *testing.T) {
	tr := newTracker("t", 0, 0)
	items := tr.add(make([]record, 3), 3)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if tr.room(ctx, 3) {
		t.Error("there is room above the limit")
	}
	go tr.finish(items[0])
	if !tr.room(t.Context(), 3) {
		t.Error("there is no room after one is done")
	}
}

func TestTrackerNeverPassesAGap(t *testing.T) {
	tr := newTracker("t", 0, 10)
	var recs []record
	for i := range int64(5) {
		recs = append(recs, record{offset: 10 + 2*i}) // with offsets missing, as after compaction
	}
	items := tr.add(recs, 30)
	for _, step := range []struct {
		finish int
		want   int64
	}{{2, 10}, {1, 10}, {0, 15}, {4, 15}, {3, 30}} {
		tr.finish(items[step.finish])
		if got, _ := tr.toCommit(); got != step.want {
			t.Errorf("after %d: position %d, want %d", step.finish, got, step.want)
		}
	}
	tr.add(nil, 31)
	if got, isNew := tr.toCommit(); got != 31 || !isNew {
		t.Errorf("after an empty fetch: position %d, new %v", got, isNew)
	}
}
