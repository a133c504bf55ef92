package check

import (
	"fmt"
	"testing"
	"time"
)

// TestPauseIsFromKillToTheNextAnsweredCall: only of shards that the coordinator
// owned, and only after it was killed.
func TestPauseIsFromKillToTheNextAnsweredCall(t *testing.T) {
	at := func(s float64) time.Time { return time.UnixMicro(int64(s * 1e6)) }
	tr := newTrails([]Struck{
		{at(10), []int{1, 2}}, {at(20), []int{1}}, {at(30), []int{2}}, {at(40), nil},
	})
	for i, e := range []struct {
		shard int
		at    float64
		kind  string
	}{
		{1, 9, "replied"},  // before
		{3, 10.5, "start"}, // of another's
		{2, 11, "start"},   // no call
		{2, 13, "replied"}, // 3 s after the first
		{1, 12, "replied"}, // 2 s after it: entries come by transaction, not by time
		{1, 25, "replied"}, // 5 s after the second
		{1, 31, "replied"}, // not of the third
	} {
		tr.add(event{gid: fmt.Sprint(i), shard: e.shard, at: at(e.at).UnixMicro(), kind: e.kind})
	}
	got := tr.pause()
	if want := (Pause{Kills: 3, Median: 5, Max: 5, Never: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
