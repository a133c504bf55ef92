package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// Load implements store.Store.
func (s *Store) Load(ctx context.Context, gid string) (store.Record, error) {
	end, err := s.begin(ctx, "load")
	if err != nil {
		return store.Record{}, err
	}
	defer end()
	r, found := s.data.rows[gid]
	if !found {
		return store.Record{}, fmt.Errorf("memstore: load: transaction %q: %w", gid, store.ErrNotFound)
	}
	return keep(r), nil
}

// Due implements store.Store.
func (s *Store) Due(ctx context.Context, q store.DueQuery) ([]store.Record, error) {
	end, err := s.begin(ctx, "due")
	if err != nil {
		return nil, err
	}
	defer end()
	from, until := micros(q.From), micros(q.Until)
	after := store.Record{Shard: q.AfterShard, GID: q.AfterGID, NextAt: micros(q.AfterNext)}
	shards := make(map[int]bool, len(q.Shards))
	for _, shard := range q.Shards {
		shards[shard] = true
	}
	return s.data.page(q.Limit, byShard, func(r *store.Record) bool {
		return shards[r.Shard] && !r.NextAt.IsZero() && r.NextAt.Before(until) &&
			(from.IsZero() || !r.NextAt.Before(from)) &&
			(q.AfterGID == "" || byShard(*r, after) > 0)
	}), nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, q store.Query, after *store.Cursor, limit int) ([]store.Record, error) {
	end, err := s.begin(ctx, "list")
	if err != nil {
		return nil, err
	}
	defer end()
	order := byCreation
	if q.OldestFirst {
		order, after = func(a, b store.Record) int { return byCreation(b, a) }, nil
	}
	found := s.data.page(limit, order, func(r *store.Record) bool {
		if after != nil && byCreation(*r, store.Record{GID: after.GID, CreatedAt: micros(after.CreatedAt)}) <= 0 {
			return false
		}
		return matches(&q, r)
	})
	for i := range found {
		found[i].Definition, found[i].Body = nil, nil
	}
	return found, nil
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, q store.Query) (map[uint8]int64, error) {
	end, err := s.begin(ctx, "count")
	if err != nil {
		return nil, err
	}
	defer end()
	counts := make(map[uint8]int64)
	for _, r := range s.data.rows {
		if matches(&q, &r) {
			counts[r.State]++
		}
	}
	return counts, nil
}

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, gid string, after int64, limit int) ([]store.Event, error) {
	end, err := s.begin(ctx, "events")
	if err != nil {
		return nil, err
	}
	defer end()
	events := s.data.events[gid]
	i, found := slices.BinarySearchFunc(events, after, bySeq)
	if found {
		i++
	}
	var page []store.Event
	for ; i < len(events) && len(page) < limit; i++ {
		page = append(page, keepEvent(events[i]))
	}
	return page, nil
}

// Purge implements store.Store.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	end, err := s.begin(ctx, "purge")
	if err != nil {
		return 0, err
	}
	defer end()
	before = micros(before)
	old := s.data.page(limit, byFinish, func(r *store.Record) bool {
		return !r.FinishedAt.IsZero() && r.FinishedAt.Before(before)
	})
	for i := range old {
		delete(s.data.rows, old[i].GID)
		delete(s.data.events, old[i].GID)
	}
	return len(old), nil
}

// page returns copies of the first limit transactions that match, in order.
func (d *data) page(limit int, order func(a, b store.Record) int, match func(*store.Record) bool) []store.Record {
	if limit < 1 {
		return nil
	}
	var found []store.Record
	for _, r := range d.rows {
		if match(&r) {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, order)
	found = found[:min(limit, len(found))]
	for i := range found {
		found[i] = keep(found[i])
	}
	return slices.Clip(found)
}

// byShard is the order of what is due.
func byShard(a, b store.Record) int {
	return cmp.Or(cmp.Compare(a.Shard, b.Shard), a.NextAt.Compare(b.NextAt), strings.Compare(a.GID, b.GID))
}

func byFinish(a, b store.Record) int {
	return cmp.Or(a.FinishedAt.Compare(b.FinishedAt), byCreation(a, b))
}

// byCreation is the order of lists: newest first, then by gid.
func byCreation(a, b store.Record) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(a.GID, b.GID))
}

func matches(q *store.Query, r *store.Record) bool {
	for k, v := range q.Labels {
		if has, ok := r.Labels[k]; !ok || has != v {
			return false
		}
	}
	return (len(q.States) == 0 || slices.Contains(q.States, r.State)) &&
		(q.Namespace == nil || *q.Namespace == r.Namespace) &&
		(q.Stalled == nil || *q.Stalled == r.Stalled) &&
		(q.WaitsFor == "" || q.WaitsFor == r.WaitsFor) &&
		(q.Kind == "" || q.Kind == r.Kind) &&
		(q.Name == "" || q.Name == r.Name) &&
		(q.Paused == nil || *q.Paused == r.Paused) &&
		(!q.Unfinished || r.FinishedAt.IsZero()) &&
		(q.CreatedFrom.IsZero() || !r.CreatedAt.Before(micros(q.CreatedFrom))) &&
		(q.CreatedUntil.IsZero() || r.CreatedAt.Before(micros(q.CreatedUntil))) &&
		(q.UpdatedUntil.IsZero() || r.UpdatedAt.Before(micros(q.UpdatedUntil)))
}
