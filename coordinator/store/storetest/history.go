package storetest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/amends-dev/amends/coordinator/store"
)

func historyCases() []testCase {
	return []testCase{
		{"Events/Order", testEvents},
		{"Events/Sizes", testEventSizes},
		{"Events/NeverChanged", testEventsNeverChanged},
		{"Purge/Finished", testPurge},
		{"Purge/Order", testPurgeOrder},
		{"Purge/Bulk", testPurgeBulk},
		{"Purge/Again", testCreateAfterPurge},
	}
}

func testEvents(f *fixture) {
	w := create("t")
	for seq := int64(2); seq <= 12; seq++ {
		w.Events = append(w.Events, event("t", seq))
	}
	w.Record.EventSeq = 12
	neighbour := create("t ")
	f.commit(w, neighbour)
	n := next(w)
	f.commit(n)
	all := append(w.Events, n.Events...)
	for _, c := range []struct {
		after int64
		limit int
		want  []store.Event
	}{
		{0, 100, all}, {0, 5, all[:5]}, {5, 5, all[5:10]}, {12, 5, all[12:]}, {13, 5, nil}, {0, 0, nil}, {-3, 2, all[:2]},
	} {
		got, err := f.st.Events(f.ctx, "t", c.after, c.limit)
		f.ok(err)
		same(f, fmt.Sprintf("%d events after %d", c.limit, c.after), got, c.want)
	}
}

// testEventSizes appends events one by one, of all kinds: a store may keep some
// of them elsewhere than others.
func testEventSizes(f *fixture) {
	w := create("t")
	w.Events, w.Record.EventSeq = nil, 0
	var all []store.Event
	f.commit(w)
	for seq := range int64(40) {
		w = next(w)
		ev := &w.Events[0]
		switch seq % 7 {
		case 1:
			ev.Data = []byte(`{"text":"` + strings.Repeat("x", int(seq)*33) + `"}`)
		case 2:
			ev.Data = []byte(fmt.Sprintf(`{"escaped":"\u003c<&>\n","spaced" : [ 1 , 2 ], "ü":"日本 %d"}`, seq))
		case 3:
			ev.Data = []byte("{\n}")
		case 4:
			ev.Data, ev.Type = []byte{0, 0xff, byte(seq)}, `quoted "\ type`
		case 5:
			ev.Data, ev.Prev, ev.Hash = nil, nil, nil
		case 6:
			ev.Data, ev.Hash, ev.Type = []byte(`null`), []byte{0xff, 0}, ""
		}
		all = append(all, *ev)
		f.commit(w)
		f.commit(w) // again
		same(f, "events", f.events("t"), all)
	}
	for after := range int64(42) {
		for _, limit := range []int{1, 3, 100} {
			got, err := f.st.Events(f.ctx, "t", after, limit)
			f.ok(err)
			want := append([]store.Event(nil), all[min(after, 40):]...)
			same(f, fmt.Sprintf("%d events after %d", limit, after), len(got), min(limit, len(want)))
			for i := range got {
				same(f, "event", got[i], want[i])
			}
		}
	}
}

// testEventsNeverChanged: a version that is there brings no events, be it with
// other content.
func testEventsNeverChanged(f *fixture) {
	w := create("t")
	f.commit(w)
	n := next(w)
	f.commit(n)
	for _, forged := range []store.Write{create("t"), next(w)} {
		forged.Events[0].Data = []byte(`{"forged":true}`)
		f.commit(forged)
	}
	same(f, "events", f.events("t"), append(w.Events, n.Events...))
}

func testPurge(f *fixture) {
	w := map[string]store.Write{}
	for _, gid := range []string{"old", "older", "new", "live", "parked"} {
		c := create(gid)
		c.Record.Labels = map[string]string{"x": ""}
		w[gid] = c
	}
	f.commit(w["old"], w["older"], w["new"], w["live"], w["parked"])
	f.commit(finish(w["old"], 4, at(20)), finish(w["older"], 5, at(10)), finish(w["new"], 4, at(30)))
	purge := func(seconds, limit, want int) {
		f.Helper()
		n, err := f.st.Purge(f.ctx, at(seconds), limit)
		f.ok(err)
		same(f, "purged", n, want)
	}
	purge(10, 10, 0) // the bound is exclusive
	purge(99, 0, 0)
	purge(30, 1, 1)
	if _, err := f.st.Load(f.ctx, "older"); !errors.Is(err, store.ErrNotFound) {
		f.Fatalf("the oldest was not the first: %v", err)
	}
	purge(30, 10, 1)
	purge(1<<20, 10, 1)
	purge(1<<20, 10, 0)
	for gid, left := range map[string]bool{"old": false, "older": false, "new": false, "live": true, "parked": true} {
		_, err := f.st.Load(f.ctx, gid)
		same(f, gid+" is there", err == nil, left)
		same(f, gid+" has events", len(f.events(gid)) > 0, left)
	}
	found, err := f.st.List(f.ctx, store.Query{Labels: map[string]string{"x": ""}}, nil, 10)
	f.ok(err)
	same(f, "found by label", len(found), 2)
}

// testPurgeOrder: what finished at the same time goes in the order of lists.
func testPurgeOrder(f *fixture) {
	var first, then []store.Write
	for i, gid := range []string{"e", "d", "c", "b", "a"} {
		w := create(gid)
		w.Record.CreatedAt = at(i / 2) // e and d, c and b, a
		first = append(first, w)
		then = append(then, finish(w, 4, at(10-i/4))) // a before all others
	}
	f.commit(first...)
	f.commit(then...)
	for left := []string{"a", "b", "c", "d", "e"}; len(left) > 0; left = left[1:] {
		for _, gid := range left {
			f.load(gid)
		}
		n, err := f.st.Purge(f.ctx, at(11), 1)
		f.ok(err)
		same(f, "purged", n, 1)
		if _, err := f.st.Load(f.ctx, left[0]); !errors.Is(err, store.ErrNotFound) {
			f.Fatalf("load of %q, which was the first to go: %v", left[0], err)
		}
	}
}

func testPurgeBulk(f *fixture) {
	const n = 3000
	var first, then []store.Write
	for i := range n {
		w := create(fmt.Sprintf("t%d", i))
		first = append(first, w)
		then = append(then, finish(w, 4, at(i)))
	}
	f.commit(first...)
	f.commit(then...)
	f.commit(create("live"))
	purged, err := f.st.Purge(f.ctx, at(n), 2500)
	f.ok(err)
	same(f, "purged", purged, 2500)
	purged, err = f.st.Purge(f.ctx, at(n), 2500)
	f.ok(err)
	same(f, "purged then", purged, 500)
	same(f, "events of the first", len(f.events("t0")), 0)
	counts, err := f.st.Count(f.ctx, store.Query{})
	f.ok(err)
	same(f, "left", counts, map[uint8]int64{1: 1})
}

// testCreateAfterPurge uses a gid again: nothing of the old one may remain.
func testCreateAfterPurge(f *fixture) {
	w := create("t")
	w.Record.Labels = map[string]string{"k": "old"}
	f.commit(w)
	f.commit(finish(w, 4, at(1)))
	_, err := f.st.Purge(f.ctx, at(2), 10)
	f.ok(err)
	w.Record.Labels = map[string]string{"k": "new"}
	w.Record.Definition = []byte("another")
	f.commit(w)
	same(f, "record", f.load("t"), w.Record)
	same(f, "events", f.events("t"), w.Events)
	found, err := f.st.List(f.ctx, store.Query{Labels: map[string]string{"k": "old"}}, nil, 10)
	f.ok(err)
	same(f, "found by the old label", len(found), 0)
}
