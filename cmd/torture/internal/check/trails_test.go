package check

import (
	"fmt"
	"reflect"
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

// TestLinesOfARow: what a transaction's row has of its trail, and where it ends
// to make sense.
func TestLinesOfARow(t *testing.T) {
	const first = `{"seq":1,"at":7,"type":"started","prev":"","hash":"AQI=","data":{"a": "\u003c"}}` + "\n"
	const second = `{"seq":2,"at":8,"type":"replied","prev":"AQI=","hash":"AwQ=","data":{}}` + "\n"
	got, err := readLines("g", 3, []byte(first+second))
	want := []event{
		{gid: "g", shard: 3, seq: 1, at: 7, kind: "started", data: []byte(`{"a": "\u003c"}`), prev: []byte{}, hash: []byte{1, 2}},
		{gid: "g", shard: 3, seq: 2, at: 8, kind: "replied", data: []byte(`{}`), prev: []byte{1, 2}, hash: []byte{3, 4}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: got %+v, want %+v", err, got, want)
	}
	if got, err := readLines("g", 3, nil); err != nil || len(got) != 0 {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	if got, err := readLines("g", 3, []byte(first+second[:20])); err == nil || len(got) != 1 {
		t.Errorf("cut short: %+v, %v", got, err)
	}
}
