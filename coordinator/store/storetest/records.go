package storetest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

func recordCases() []testCase {
	return []testCase{
		{"Record/CreateAndLoad", testCreateAndLoad},
		{"Record/Missing", testMissing},
		{"Record/Versions", testVersions},
		{"Record/FixedFields", testFixedFields},
		{"Record/GroupCommit", testGroupCommit},
		{"Record/Large", testLarge},
		{"Record/Sizes", testSizes},
		{"Record/Identifiers", testIdentifiers},
		{"Record/AnyBytes", testAnyBytes},
		{"Record/Times", testTimes},
		{"Record/IllegalBatch", testIllegalBatch},
		{"Record/NotAliased", testNotAliased},
	}
}

func testCreateAndLoad(f *fixture) {
	w := create("t1")
	w.Record.Paused, w.Record.Stalled = true, true
	w.Record.Namespace = strings.Repeat("n", store.MaxNamespace)
	w.Record.WaitsFor = strings.Repeat("s", store.MaxWaitsFor)
	w.Record.Labels = map[string]string{"tenant": "blue", "empty": ""}
	w.Record.Reason = "because"
	w.Record.Deadline = at(60)
	f.commit(w)
	same(f, "record", f.load("t1"), w.Record)
	same(f, "events", f.events("t1"), w.Events)
	later := next(w)
	later.Record.Stalled, later.Record.WaitsFor, later.Record.Paused = false, "banks", false
	f.commit(later)
	same(f, "record, changed", f.load("t1"), later.Record)

	bare := store.Record{GID: "bare", Shard: shardOf("bare"), Version: 1}
	f.commit(store.Write{Record: bare})
	same(f, "record of zero values", f.load("bare"), bare)
	same(f, "events", len(f.events("bare")), 0)
}

func testMissing(f *fixture) {
	if _, err := f.st.Load(f.ctx, "nobody"); !errors.Is(err, store.ErrNotFound) {
		f.Fatalf("load: %v, want ErrNotFound", err)
	} else if !strings.Contains(err.Error(), "nobody") {
		f.Fatalf("the error does not name the transaction: %v", err)
	}
	same(f, "events", len(f.events("nobody")), 0)
}

func testVersions(f *fixture) {
	w1 := create("t")
	w2, w3 := next(w1), next(next(w1))
	w7 := next(w3)
	w7.Record.Version = 7
	f.commit(w1)
	f.commit(w2)
	same(f, "second version", f.load("t"), w2.Record)
	f.commit(w3)
	f.commit(w2) // a delayed repeat
	f.commit(w1)
	same(f, "after delayed repeats", f.load("t"), w3.Record)
	f.commit(w7)
	same(f, "after a skip", f.load("t"), w7.Record)
	other := w7
	other.Record.Body = []byte("same version, other content")
	f.commit(other)
	same(f, "after a repeat of the same version", f.load("t"), w7.Record)
	same(f, "number of events", len(f.events("t")), 4)
}

func testFixedFields(f *fixture) {
	w := create("t")
	w.Record.Labels = map[string]string{"k": "v"}
	f.commit(w)
	changed := next(w)
	changed.Record.Namespace = "elsewhere"
	changed.Record.Kind, changed.Record.Name, changed.Record.CreatedAt = "tcc", "other", at(500)
	changed.Record.Definition, changed.Record.Digest = []byte("other"), nil
	changed.Record.Labels = map[string]string{"k": "other"}
	f.commit(changed)
	want := next(w).Record
	same(f, "fixed fields", f.load("t"), want)
	for value, n := range map[string]int{"v": 1, "other": 0} {
		found, err := f.st.List(f.ctx, store.Query{Labels: map[string]string{"k": value}}, nil, 10)
		f.ok(err)
		same(f, "found by label "+value, len(found), n)
	}
}

func testGroupCommit(f *fixture) {
	for _, n := range []int{1, 2, 3, 5, 16, 17, 100, 257, 2000} {
		var first, second []store.Write
		for i := range n {
			w := create(fmt.Sprintf("t-%d-%d", n, i))
			w.Record.Labels = map[string]string{"n": fmt.Sprint(n), "i": fmt.Sprint(i)}
			w.Events = append(w.Events, event(w.Record.GID, 2))
			w.Record.EventSeq = 2
			first = append(first, w)
			second = append(second, next(w))
		}
		f.commit(first...)
		second = append(second, create(fmt.Sprintf("late-%d", n))) // old and new in one batch
		f.commit(second...)
		for _, i := range []int{0, n / 2, n - 1} {
			w := second[i]
			same(f, "record", f.load(w.Record.GID), w.Record)
			same(f, "number of events", len(f.events(w.Record.GID)), 3)
		}
		found, err := f.st.List(f.ctx, store.Query{Labels: map[string]string{"n": fmt.Sprint(n)}}, nil, n+1)
		f.ok(err)
		same(f, "found by label", len(found), n)
	}
}

func testLarge(f *fixture) {
	w := create("large")
	w.Record.Definition = []byte(strings.Repeat("d", 1<<20))
	w.Record.Body = []byte(strings.Repeat("b", 3<<20))
	w.Record.Reason = strings.Repeat("r", 4<<10)
	w.Events[0].Data = []byte(strings.Repeat("e", 1<<20))
	f.commit(w)
	same(f, "record", f.load("large"), w.Record)
	same(f, "events", f.events("large"), w.Events)
}

// testSizes writes bodies that grow and shrink, and end in zeros: what a store
// puts behind them for its own sake is not theirs.
func testSizes(f *fixture) {
	var live []store.Write
	sizes := []int{1, 2, 127, 128, 255, 256, 257, 511, 512, 513, 2047, 2048, 2049, 5000, 0}
	for i := range sizes {
		w := create(fmt.Sprintf("t%02d", i))
		w.Record.Shard = 1
		live = append(live, w)
	}
	body := func(n, version int) []byte {
		b := make([]byte, n)
		if n > 3 {
			b[n-3] = byte(version)
		}
		return b[:n:n]
	}
	for version := range 2 * len(sizes) {
		for i := range live {
			if version > 0 {
				live[i] = next(live[i])
			}
			if live[i].Record.Body = body(sizes[(i+version)%len(sizes)], version); len(live[i].Record.Body) == 0 {
				live[i].Record.Body = nil
			}
		}
		f.commit(live...)
		due, err := f.st.Due(f.ctx, store.DueQuery{Shards: []int{1}, Until: at(1), Limit: 100})
		f.ok(err)
		for i := range live {
			same(f, fmt.Sprintf("record %d, version %d", i, version+1), f.load(live[i].Record.GID), live[i].Record)
			same(f, fmt.Sprintf("record %d, version %d, due", i, version+1), due[i], live[i].Record)
		}
	}
	for i := range live {
		want := body(sizes[i], 99)
		if live[i] = finish(live[i], 4, at(1)); len(want) == 0 {
			want = nil
		}
		live[i].Record.Body = want
	}
	f.commit(live...)
	for i := range live {
		same(f, "record, finished", f.load(live[i].Record.GID), live[i].Record)
	}
}

// identifiers are distinct byte by byte, though a collation may think not.
func identifiers() []string {
	return []string{
		"a", "A", "a ", " a", "a  ", "aa", "aA", "Aa", "ä", "a\u0308", "é", "e\u0301", "e", "ß", "ss", "SS",
		"\u212b", "\u00c5", "i", "I", "ı", "İ", "%", "_", "'", "''", `"`, "--", "a;b", "a\x00b", "a\x00", "\x00",
		"\xff", "\xfe\xff", "日本", "😀", "1", "01", "1.0", "1e0", "NULL",
		strings.Repeat("x", store.MaxGID), strings.Repeat("x", store.MaxGID-1) + "X", strings.Repeat("é", store.MaxGID/2),
	}
}

func testIdentifiers(f *fixture) {
	var writes []store.Write
	for i, gid := range identifiers() {
		w := create(gid)
		w.Record.Body = fmt.Appendf(nil, "number %d", i)
		writes = append(writes, w)
	}
	f.commit(writes...)
	for _, w := range writes {
		same(f, fmt.Sprintf("record %q", w.Record.GID), f.load(w.Record.GID), w.Record)
		same(f, fmt.Sprintf("events of %q", w.Record.GID), f.events(w.Record.GID), w.Events)
	}
	found, err := f.st.List(f.ctx, store.Query{}, nil, 1000)
	f.ok(err)
	same(f, "listed", len(found), len(writes))
	for i := 1; i < len(found); i++ {
		if found[i-1].GID >= found[i].GID {
			f.Fatalf("%q is listed before %q: not by bytes", found[i-1].GID, found[i].GID)
		}
	}
	counts, err := f.st.Count(f.ctx, store.Query{Name: "Transfer"})
	f.ok(err)
	same(f, "of the name in another case", len(counts), 0)
}

func testAnyBytes(f *fixture) {
	w := create("t")
	w.Record.Reason = "broken \xff\xfe \x00 text 'quoted' \u202e" + strings.Repeat("é", 3000)
	w.Record.Body = []byte{0, 1, 2, 0xff, 0, '\''}
	w.Record.Labels = map[string]string{"q": `'";--%_`, "ü": "日本 ", "case": "Case", "html": "<&>\u2028"}
	w.Events[0].Data = []byte{0, 0xff}
	f.commit(w)
	same(f, "record", f.load("t"), w.Record)
	same(f, "events", f.events("t"), w.Events)
	for k, v := range w.Record.Labels {
		found, err := f.st.List(f.ctx, store.Query{Labels: map[string]string{k: v}}, nil, 10)
		f.ok(err)
		same(f, "found by label "+k, len(found), 1)
		found, err = f.st.List(f.ctx, store.Query{Labels: map[string]string{k: strings.ToLower(v) + " "}}, nil, 10)
		f.ok(err)
		same(f, "found by another value of "+k, len(found), 0)
	}
}

func testTimes(f *fixture) {
	w := create("t")
	zone := time.FixedZone("elsewhere", 3*3600)
	fine := time.Date(2026, 1, 2, 3, 4, 5, 678901234, zone)
	cut := time.Date(2026, 1, 2, 0, 4, 5, 678901000, time.UTC)
	old := time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC)
	w.Record.CreatedAt, w.Record.UpdatedAt, w.Record.NextAt = fine, time.Now(), fine.In(time.UTC)
	w.Record.Deadline, w.Record.FinishedAt = old, time.Time{}.In(zone)
	w.Events[0].At = fine
	f.commit(w)
	got := f.load("t")
	want := w.Record
	want.CreatedAt, want.NextAt, want.FinishedAt = cut, cut, time.Time{}
	want.UpdatedAt = w.Record.UpdatedAt.UTC().Truncate(time.Microsecond)
	same(f, "times", got, want)
	same(f, "time of the event", f.events("t")[0].At, cut)

	epoch := create("epoch")
	epoch.Record.NextAt, epoch.Record.Deadline = time.Unix(0, 0).UTC(), time.Unix(0, 0).UTC()
	epoch.Record.CreatedAt, epoch.Record.UpdatedAt = time.Time{}, time.Time{}
	f.commit(epoch)
	same(f, "the Unix epoch is not the zero time", f.load("epoch"), epoch.Record)
}

func testIllegalBatch(f *fixture) {
	good := create("good")
	tests := map[string]store.Batch{
		"twice":        f.batch(good, good),
		"no lease":     {Writes: []store.Write{good}},
		"lease twice":  {Leases: []store.Lease{f.leases[0], f.leases[0]}},
		"no gid":       f.batch(good, create("")),
		"gid too long": f.batch(good, create(strings.Repeat("x", store.MaxGID+1))),
		"long namespace": f.batch(good, store.Write{Record: store.Record{GID: "n", Shard: 1, Version: 1,
			Namespace: strings.Repeat("x", store.MaxNamespace+1)}}),
		"long service": f.batch(good, store.Write{Record: store.Record{GID: "s", Shard: 1, Version: 1,
			WaitsFor: strings.Repeat("x", store.MaxWaitsFor+1)}}),
		"version 0":         f.batch(good, store.Write{Record: store.Record{GID: "v", Shard: 1}}),
		"event of another":  f.batch(store.Write{Record: good.Record, Events: []store.Event{event("bad", 1)}}),
		"event without seq": f.batch(store.Write{Record: good.Record, Events: []store.Event{event("good", 0)}}),
	}
	for name, b := range tests {
		if err := f.st.Commit(f.ctx, b); err == nil {
			f.Errorf("%s: accepted", name)
		} else if errors.Is(err, store.ErrConflict) {
			f.Errorf("%s: %v is no conflict", name, err)
		}
	}
	if _, err := f.st.Load(f.ctx, "good"); !errors.Is(err, store.ErrNotFound) {
		f.Fatalf("something of an illegal batch was written: %v", err)
	}
	f.ok(f.st.Commit(f.ctx, store.Batch{}))
}

func testNotAliased(f *fixture) {
	w := create("t")
	w.Record.Labels = map[string]string{"k": "v"}
	want := create("t")
	want.Record.Labels = map[string]string{"k": "v"}
	f.commit(w)
	scribble := func(r store.Record, evs []store.Event) {
		r.Body[0], r.Definition[0], r.Labels["k"], evs[0].Data[0] = 'X', 'X', "X", 'X'
	}
	scribble(w.Record, w.Events)
	scribble(f.load("t"), f.events("t"))
	same(f, "record", f.load("t"), want.Record)
	same(f, "events", f.events("t"), want.Events)
}
