package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

func dueCases() []testCase {
	return []testCase{
		{"Due/Window", testDueWindow},
		{"Due/Paging", testDuePaging},
		{"Due/Whole", testDueWhole},
	}
}

func (f *fixture) due(q store.DueQuery) []string {
	f.Helper()
	records, err := f.st.Due(f.ctx, q)
	f.ok(err)
	var gids []string
	for _, r := range records {
		gids = append(gids, r.GID)
	}
	return gids
}

func everyShard() []int {
	shards := make([]int, Shards)
	for i := range shards {
		shards[i] = i
	}
	return shards
}

func testDueWindow(f *fixture) {
	dueAt := func(gid string, shard int, next time.Time) store.Write {
		w := create(gid)
		w.Record.Shard, w.Record.NextAt = shard, next
		return w
	}
	gone := dueAt("gone", 0, at(5))
	f.commit(dueAt("c", 0, at(10)), dueAt("b", 1, at(10)), dueAt("a", 0, at(20)), dueAt("d", 2, at(30)),
		dueAt("never", 0, time.Time{}), gone, dueAt("old", 1, time.Unix(-5, 0)))
	f.commit(finish(gone, 4, at(6)))
	some := []int{0, 1}
	for name, c := range map[string]struct {
		q    store.DueQuery
		want []string
	}{
		"all":           {store.DueQuery{Shards: everyShard(), Until: at(99)}, []string{"c", "a", "old", "b", "d"}},
		"some shards":   {store.DueQuery{Shards: some, Until: at(99)}, []string{"c", "a", "old", "b"}},
		"no shards":     {store.DueQuery{Until: at(99)}, nil},
		"until":         {store.DueQuery{Shards: some, Until: at(20)}, []string{"c", "old", "b"}},
		"from":          {store.DueQuery{Shards: some, From: at(10), Until: at(20)}, []string{"c", "b"}},
		"past all":      {store.DueQuery{Shards: some, From: at(21), Until: at(99)}, nil},
		"until nothing": {store.DueQuery{Shards: some}, nil},
		"any order":     {store.DueQuery{Shards: []int{2, 1, 0}, From: at(10), Until: at(99)}, []string{"c", "a", "b", "d"}},
		"after":         {store.DueQuery{Shards: some, Until: at(99), AfterNext: at(10), AfterGID: "c"}, []string{"a", "old", "b"}},
		"after between": {store.DueQuery{Shards: some, Until: at(99), AfterNext: at(10), AfterGID: "b"}, []string{"c", "a", "old", "b"}},
		"after a shard": {store.DueQuery{Shards: some, Until: at(99), AfterNext: at(20), AfterGID: "a"}, []string{"old", "b"}},
		"from and after": {store.DueQuery{Shards: some, From: at(20), Until: at(99), AfterNext: at(10), AfterGID: "c"},
			[]string{"a"}},
		"after another shard": {store.DueQuery{Shards: everyShard(), Until: at(99), AfterShard: 1, AfterNext: at(10), AfterGID: "b"},
			[]string{"d"}},
		"after in another's shard": {store.DueQuery{Shards: []int{0, 2}, Until: at(99), AfterShard: 1, AfterGID: "b"},
			[]string{"d"}},
	} {
		c.q.Limit = 100
		same(f, name, f.due(c.q), c.want)
		c.q.Limit = 1
		same(f, name+": the first", f.due(c.q), c.want[:min(1, len(c.want))])
		c.q.Limit = 0
		same(f, name+": limit 0", f.due(c.q), nil)
	}
}

func testDuePaging(f *fixture) {
	var writes []store.Write
	for i := range 50 {
		w := create(fmt.Sprintf("t%02d", i))
		w.Record.NextAt = at(i % 7)
		writes = append(writes, w)
	}
	f.commit(writes...)
	var got []string
	q := store.DueQuery{Shards: everyShard(), Until: at(99), Limit: 8}
	for {
		page, err := f.st.Due(f.ctx, q)
		f.ok(err)
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			got = append(got, r.GID)
		}
		last := page[len(page)-1]
		q.AfterShard, q.AfterNext, q.AfterGID = last.Shard, last.NextAt, last.GID
	}
	slices.SortStableFunc(writes, func(a, b store.Write) int { return byShard(a.Record, b.Record) })
	var want []string
	for _, w := range writes {
		want = append(want, w.Record.GID)
	}
	same(f, "all pages", got, want)
}

func testDueWhole(f *fixture) {
	w := create("t")
	w.Record.Labels = map[string]string{"k": "v"}
	f.commit(w)
	got, err := f.st.Due(f.ctx, store.DueQuery{Shards: everyShard(), Until: at(1), Limit: 5})
	f.ok(err)
	same(f, "due", got, []store.Record{w.Record})
}
