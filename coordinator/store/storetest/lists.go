package storetest

import (
	"fmt"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

func listCases() []testCase {
	return []testCase{
		{"List/Filters", testFilters},
		{"List/Paging", testPaging},
		{"List/PagingUnderWrites", testPagingUnderWrites},
		{"List/WithoutBodies", testWithoutBodies},
		{"List/NoLongerStalled", testNoLongerStalled},
		{"Count/ByState", testCount},
	}
}

// assorted creates 60 transactions of several kinds, ages, labels and states.
func assorted(f *fixture) []store.Record {
	var first, then []store.Write
	for i := range 60 {
		w := create(fmt.Sprintf("t%02d", i))
		r := &w.Record
		r.CreatedAt = at(i / 3) // three of each age: ties are broken by gid
		r.Kind = []string{"saga", "tcc"}[i%2]
		r.Name = []string{"transfer", "trip", "order"}[i%3]
		r.Paused = i%7 == 0
		r.Namespace = []string{"", "blue", "Blue", "blue "}[i%4]
		r.Labels = map[string]string{"tenant": fmt.Sprint(i % 4)}
		if i%5 == 0 {
			r.Labels["vip"] = "yes"
		}
		if i%10 == 0 {
			r.Labels = nil
		}
		first = append(first, w)
		switch w = next(w); {
		case i%4 == 0:
			w.Record.State, w.Record.FinishedAt, w.Record.NextAt = 4, at(100+i), time.Time{}
		case i%6 == 1:
			w.Record.State, w.Record.NextAt = 6, time.Time{}
		default:
			w.Record.State = uint8(1 + i%3)
		}
		if i%3 == 1 { // also of finished ones: what that means is not the store's
			w.Record.Stalled, w.Record.WaitsFor = i%2 == 0, []string{"banks", "shops.eu"}[i%5%2]
		}
		w.Record.UpdatedAt = at(200 - i)
		then = append(then, w)
	}
	f.commit(first...)
	f.commit(then...)
	all := make([]store.Record, len(then))
	for i, w := range then {
		all[i] = w.Record
	}
	return all
}

func queries() map[string]store.Query {
	yes, no, blue, none, other := true, false, "blue", "", "green"
	return map[string]store.Query{
		"all":           {},
		"state":         {States: []uint8{6}},
		"states":        {States: []uint8{1, 4, 6}},
		"no such state": {States: []uint8{77}},
		"kind":          {Kind: "tcc"},
		"name":          {Name: "trip"},
		"no such name":  {Name: "TRIP"},
		"paused":        {Paused: &yes},
		"not paused":    {Paused: &no},
		"unfinished":    {Unfinished: true},

		"namespace":                {Namespace: &blue},
		"default namespace":        {Namespace: &none},
		"no such namespace":        {Namespace: &other},
		"namespace and unfinished": {Namespace: &blue, Unfinished: true},
		"namespace since":          {Namespace: &blue, CreatedFrom: at(7), CreatedUntil: at(15)},
		"namespace and label":      {Namespace: &blue, Labels: map[string]string{"tenant": "1"}},
		"stalled":                  {Stalled: &yes},
		"not stalled":              {Stalled: &no},
		"stalled since":            {Stalled: &yes, CreatedFrom: at(7), Namespace: &none},
		"stalled and label":        {Stalled: &yes, Labels: map[string]string{"tenant": "0"}, Unfinished: true},
		"waits for":                {WaitsFor: "banks"},
		"waits for another":        {WaitsFor: "Banks"},
		"waits and stalled":        {WaitsFor: "banks", Stalled: &yes, CreatedUntil: at(15)},
		"waits and labels":         {WaitsFor: "shops.eu", Labels: map[string]string{"tenant": "1", "vip": "yes"}},
		"waits in a namespace":     {WaitsFor: "shops.eu", Namespace: &blue},

		"oldest":            {OldestFirst: true},
		"oldest unfinished": {OldestFirst: true, Unfinished: true, Namespace: &blue},
		"oldest stalled":    {OldestFirst: true, Stalled: &yes},
		"oldest labelled":   {OldestFirst: true, Labels: map[string]string{"tenant": "1"}},

		"created from":     {CreatedFrom: at(7)},
		"created until":    {CreatedUntil: at(7)},
		"created within":   {CreatedFrom: at(3), CreatedUntil: at(9)},
		"created never":    {CreatedFrom: at(9), CreatedUntil: at(9)},
		"not moved":        {UpdatedUntil: at(180)},
		"label":            {Labels: map[string]string{"tenant": "1"}},
		"labels":           {Labels: map[string]string{"tenant": "1", "vip": "yes"}},
		"no such label":    {Labels: map[string]string{"tenant": "9"}},
		"label and more":   {Labels: map[string]string{"tenant": "3"}, Unfinished: true, CreatedFrom: at(4)},
		"not moved lately": {Unfinished: true, States: []uint8{1, 2}, UpdatedUntil: at(190), Kind: "saga"},
		"everything": {
			States: []uint8{1, 2, 3, 4}, Kind: "saga", Name: "order", Paused: &no, CreatedFrom: at(1), CreatedUntil: at(19),
			UpdatedUntil: at(199), Labels: map[string]string{"tenant": "2"},
		},
	}
}

func testFilters(f *fixture) {
	all := assorted(f)
	for name, q := range queries() {
		want := listed(all, q, nil, 100)
		got, err := f.st.List(f.ctx, q, nil, 100)
		f.ok(err)
		same(f, name, got, want)
		counts, err := f.st.Count(f.ctx, q)
		f.ok(err)
		same(f, name+": counts", counts, counted(all, q))
	}
}

func testPaging(f *fixture) {
	all := assorted(f)
	for name, q := range queries() {
		if q.OldestFirst {
			continue // takes no cursor
		}
		for _, size := range []int{1, 2, 7} {
			same(f, fmt.Sprintf("%s by %d", name, size), pages(f, q, size, nil), listed(all, q, nil, 100))
		}
	}
	for _, limit := range []int{0, -1} {
		none, err := f.st.List(f.ctx, store.Query{}, nil, limit)
		f.ok(err)
		same(f, "listed with a limit below 1", len(none), 0)
	}
	none, err := f.st.List(f.ctx, store.Query{}, &store.Cursor{CreatedAt: day.Add(-time.Hour)}, 10)
	f.ok(err)
	same(f, "listed behind the oldest", len(none), 0)
}

// pages lists everything page by page, calling between (if any) before each
// page but the first.
func pages(f *fixture, q store.Query, size int, between func()) []store.Record {
	f.Helper()
	var all []store.Record
	var after *store.Cursor
	for {
		page, err := f.st.List(f.ctx, q, after, size)
		f.ok(err)
		if len(page) > size {
			f.Fatalf("a page of %d holds %d", size, len(page))
		}
		all = append(all, page...)
		if len(page) < size {
			return all
		}
		last := page[len(page)-1]
		after = &store.Cursor{CreatedAt: last.CreatedAt, GID: last.GID}
		if between != nil {
			between()
		}
	}
}

func testPagingUnderWrites(f *fixture) {
	all := assorted(f)
	before := make(map[string]int)
	writes := make(map[string]store.Write)
	for _, r := range all {
		before[r.GID] = 0
		writes[r.GID] = store.Write{Record: r}
	}
	round := 0
	got := pages(f, store.Query{}, 4, func() {
		round++
		var batch []store.Write
		for gid, w := range writes { // everything moves, and some arrive everywhere in the order
			w = next(w)
			writes[gid] = w
			batch = append(batch, w)
		}
		for i := range 3 {
			w := create(fmt.Sprintf("t%02d-new-%d", round, i))
			w.Record.CreatedAt = at(i * 9)
			batch = append(batch, w)
		}
		f.commit(batch...)
	})
	for i, r := range got {
		if _, was := before[r.GID]; was {
			before[r.GID]++
		}
		if i > 0 && byCreation(got[i-1], r) >= 0 {
			f.Fatalf("%s is listed behind %s", r.GID, got[i-1].GID)
		}
	}
	for gid, n := range before {
		if n != 1 {
			f.Fatalf("%s was listed %d times", gid, n)
		}
	}
}

func testWithoutBodies(f *fixture) {
	w := create("t")
	w.Record.Labels = map[string]string{"a": "1", "b": "2"}
	w.Record.Reason = "why"
	f.commit(w)
	want := w.Record
	want.Definition, want.Body = nil, nil
	for name, q := range map[string]store.Query{"all": {}, "by label": {Labels: map[string]string{"b": "2"}}} {
		got, err := f.st.List(f.ctx, q, nil, 10)
		f.ok(err)
		same(f, name, got, []store.Record{want})
	}
}

// testNoLongerStalled: who gets on leaves the lists of what is stalled, and a
// delayed repeat does not bring it back.
func testNoLongerStalled(f *fixture) {
	yes := true
	found := func(what string, want int) {
		f.Helper()
		for name, q := range map[string]store.Query{"stalled": {Stalled: &yes}, "waits for": {WaitsFor: "banks"}} {
			got, err := f.st.List(f.ctx, q, nil, 10)
			f.ok(err)
			same(f, name+", "+what, len(got), want)
			counts, err := f.st.Count(f.ctx, q)
			f.ok(err)
			same(f, name+", "+what+": count", counts[1]+counts[4], int64(want))
		}
	}
	a, b := create("a"), create("b")
	f.commit(a, b)
	found("at first", 0)
	stalledA, stalledB := next(a), next(b)
	for _, w := range []*store.Write{&stalledA, &stalledB} {
		w.Record.Stalled, w.Record.WaitsFor = true, "banks"
	}
	f.commit(stalledA, stalledB)
	found("both", 2)
	onA := next(stalledA)
	onA.Record.Stalled, onA.Record.WaitsFor = false, ""
	f.commit(onA)
	found("one got on", 1)
	f.commit(stalledA) // a delayed repeat
	found("after a delayed repeat", 1)
	onB := finish(stalledB, 4, at(5))
	onB.Record.Stalled, onB.Record.WaitsFor = false, ""
	f.commit(onB)
	found("the other finished", 0)
	again := next(onA)
	again.Record.Stalled, again.Record.WaitsFor = true, "banks"
	f.commit(again)
	found("one stalled again", 1)
	f.commit(finish(again, 4, at(6)))
	found("one finished stalled", 1) // what that means is not the store's
	_, err := f.st.Purge(f.ctx, at(10), 10)
	f.ok(err)
	found("purged", 0)
}

func testCount(f *fixture) {
	counts, err := f.st.Count(f.ctx, store.Query{})
	f.ok(err)
	same(f, "counts of nothing", len(counts), 0)
	a, b, c := create("a"), create("b"), create("c")
	f.commit(a, b, c)
	f.commit(finish(a, 4, at(1)))
	counts, err = f.st.Count(f.ctx, store.Query{})
	f.ok(err)
	same(f, "counts", counts, map[uint8]int64{1: 2, 4: 1})
	counts, err = f.st.Count(f.ctx, store.Query{Unfinished: true})
	f.ok(err)
	same(f, "counts of unfinished", counts, map[uint8]int64{1: 2})
}
