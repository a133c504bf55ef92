package storetest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// model is a store as plain as can be: what random workloads are checked
// against. It keeps what it is given and knows nothing of time or durability.
type model struct {
	epochs [Shards]int64
	owners [Shards]string
	rows   map[string]store.Record
	events map[string]map[int64]store.Event
}

func newModel() *model {
	return &model{rows: map[string]store.Record{}, events: map[string]map[int64]store.Event{}}
}

// commit returns the shards that were lost; nothing is written if any was.
func (m *model) commit(b store.Batch) []int {
	var lost []int
	for _, l := range b.Leases {
		if m.epochs[l.Shard] != l.Epoch {
			lost = append(lost, l.Shard)
		}
	}
	slices.Sort(lost)
	if lost != nil {
		return lost
	}
	for _, w := range b.Writes {
		r := w.Record
		if old, found := m.rows[r.GID]; found {
			if r.Version <= old.Version {
				r = old
			}
			r.Shard, r.Namespace, r.Kind, r.Name = old.Shard, old.Namespace, old.Kind, old.Name
			r.CreatedAt = old.CreatedAt
			r.Definition, r.Digest, r.Labels = old.Definition, old.Digest, old.Labels
		}
		m.rows[r.GID] = r
		if m.events[r.GID] == nil {
			m.events[r.GID] = map[int64]store.Event{}
		}
		for _, ev := range w.Events {
			if _, taken := m.events[r.GID][ev.Seq]; !taken {
				m.events[r.GID][ev.Seq] = ev
			}
		}
	}
	return nil
}

func (m *model) all() []store.Record { return slices.Collect(maps.Values(m.rows)) }

func (m *model) eventsOf(gid string, after int64, limit int) []store.Event {
	var found []store.Event
	for _, seq := range slices.Sorted(maps.Keys(m.events[gid])) {
		if seq > after && len(found) < limit {
			found = append(found, m.events[gid][seq])
		}
	}
	return found
}

func (m *model) due(q store.DueQuery) []store.Record {
	return first(m.all(), q.Limit, byShard, func(r store.Record) bool {
		behind := q.AfterGID == "" || byShard(r, store.Record{Shard: q.AfterShard, NextAt: q.AfterNext, GID: q.AfterGID}) > 0
		return slices.Contains(q.Shards, r.Shard) && !r.NextAt.IsZero() && !r.NextAt.Before(q.From) &&
			r.NextAt.Before(q.Until) && behind
	})
}

func (m *model) purge(before time.Time, limit int) int {
	old := first(m.all(), limit, byFinish, func(r store.Record) bool {
		return !r.FinishedAt.IsZero() && r.FinishedAt.Before(before)
	})
	for _, r := range old {
		delete(m.rows, r.GID)
		delete(m.events, r.GID)
	}
	return len(old)
}

func listed(all []store.Record, q store.Query, after *store.Cursor, limit int) []store.Record {
	order := byCreation
	if q.OldestFirst {
		order = func(a, b store.Record) int { return byCreation(b, a) }
	}
	found := first(all, limit, order, func(r store.Record) bool {
		return matches(q, r) &&
			(after == nil || byCreation(r, store.Record{CreatedAt: after.CreatedAt, GID: after.GID}) > 0)
	})
	for i := range found {
		found[i].Definition, found[i].Body = nil, nil
	}
	return found
}

func counted(all []store.Record, q store.Query) map[uint8]int64 {
	counts := map[uint8]int64{}
	for _, r := range all {
		if matches(q, r) {
			counts[r.State]++
		}
	}
	return counts
}

func first(all []store.Record, limit int, order func(a, b store.Record) int,
	match func(store.Record) bool,
) []store.Record {
	var found []store.Record
	for _, r := range all {
		if match(r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, order)
	if limit < len(found) {
		found = found[:limit]
	}
	return found
}

func matches(q store.Query, r store.Record) bool {
	for k, want := range q.Labels {
		if v, has := r.Labels[k]; !has || v != want {
			return false
		}
	}
	switch {
	case q.States != nil && !slices.Contains(q.States, r.State),
		q.Namespace != nil && r.Namespace != *q.Namespace,
		q.Stalled != nil && r.Stalled != *q.Stalled,
		q.WaitsFor != "" && r.WaitsFor != q.WaitsFor,
		q.Kind != "" && r.Kind != q.Kind,
		q.Name != "" && r.Name != q.Name,
		q.Paused != nil && r.Paused != *q.Paused,
		q.Unfinished && !r.FinishedAt.IsZero(),
		!q.CreatedFrom.IsZero() && r.CreatedAt.Before(q.CreatedFrom),
		!q.CreatedUntil.IsZero() && !r.CreatedAt.Before(q.CreatedUntil),
		!q.UpdatedUntil.IsZero() && !r.UpdatedAt.Before(q.UpdatedUntil):
		return false
	}
	return true
}

func byCreation(a, b store.Record) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(a.GID, b.GID))
}

func byShard(a, b store.Record) int {
	return cmp.Or(cmp.Compare(a.Shard, b.Shard), a.NextAt.Compare(b.NextAt), strings.Compare(a.GID, b.GID))
}

func byFinish(a, b store.Record) int {
	return cmp.Or(a.FinishedAt.Compare(b.FinishedAt), byCreation(a, b))
}
