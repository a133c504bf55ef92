package inbox

import (
	"context"
	"testing"
	"time"
)

func TestBackPressure(t *testing.T) {
	g := &generation{c: &Consumer{}}
	tr := newTracker("t", 0, 0)
	items := tr.add([]record{{weight: 300}, {weight: 300}, {weight: 300}}, 3)
	for _, limit := range []struct {
		name  string
		items int
		bytes int64
		done  *item
	}{{"of messages", 3, 1000, items[0]}, {"of bytes", 10, 600, items[1]}} {
		tr.bound(limit.items, limit.bytes)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if g.room(ctx, tr) {
			t.Errorf("there is room above the limit %s", limit.name)
		}
		cancel()
		tr.finish(limit.done)
		if !g.room(t.Context(), tr) {
			t.Errorf("there is no room below the limit %s", limit.name)
		}
	}
	if s := tr.stats(); s.Buffered != 1 || s.BufferedBytes != 300 {
		t.Errorf("stats %+v", s)
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
