package memstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, b store.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	for i := range b.Writes {
		if len(b.Writes[i].Messages) > 0 {
			return fmt.Errorf("memstore: commit: %w", store.ErrNoOutbox)
		}
	}
	end, err := s.begin(ctx, "commit")
	if err != nil {
		return err
	}
	defer end()
	var lost []int
	for _, l := range b.Leases {
		if l.Shard < 0 || l.Shard >= len(s.data.leases) || s.data.leases[l.Shard].epoch != l.Epoch {
			lost = append(lost, l.Shard)
		}
	}
	if len(lost) > 0 {
		slices.Sort(lost)
		return &store.ConflictError{Shards: lost}
	}
	for i := range b.Writes {
		s.data.write(&b.Writes[i])
	}
	return nil
}

func (d *data) write(w *store.Write) {
	old, found := d.rows[w.Record.GID]
	if rec := keep(w.Record); !found {
		d.rows[rec.GID] = rec
	} else if rec.Version > old.Version {
		rec.Shard, rec.Namespace, rec.Kind, rec.Name = old.Shard, old.Namespace, old.Kind, old.Name
		rec.CreatedAt = old.CreatedAt
		rec.Definition, rec.Digest, rec.Labels = old.Definition, old.Digest, old.Labels
		d.rows[rec.GID] = rec
	}
	for _, ev := range w.Events {
		d.append(ev)
	}
}

// append adds an event at its place, unless its number is taken.
func (d *data) append(ev store.Event) {
	events := d.events[ev.GID]
	i, found := slices.BinarySearchFunc(events, ev.Seq, bySeq)
	if found {
		return
	}
	d.events[ev.GID] = slices.Insert(events, i, keepEvent(ev))
}

func bySeq(ev store.Event, seq int64) int { return cmp.Compare(ev.Seq, seq) }

// keep returns a copy of r that shares nothing with it, as a database would
// give it back.
func keep(r store.Record) store.Record {
	r.Definition, r.Body = keepBytes(r.Definition), keepBytes(r.Body)
	r.Digest, r.EventHash = keepBytes(r.Digest), keepBytes(r.EventHash)
	r.Labels = maps.Clone(r.Labels)
	if len(r.Labels) == 0 {
		r.Labels = nil
	}
	r.CreatedAt, r.UpdatedAt = micros(r.CreatedAt), micros(r.UpdatedAt)
	r.Deadline, r.NextAt, r.FinishedAt = micros(r.Deadline), micros(r.NextAt), micros(r.FinishedAt)
	return r
}

func keepEvent(ev store.Event) store.Event {
	ev.At = micros(ev.At)
	ev.Data, ev.Prev, ev.Hash = keepBytes(ev.Data), keepBytes(ev.Prev), keepBytes(ev.Hash)
	return ev
}

func keepBytes(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return slices.Clone(b)
}

// micros cuts t to microseconds in UTC, without a monotonic reading.
func micros(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}
