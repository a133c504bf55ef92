package sealedstore

import (
	"context"
	"errors"

	"github.com/amends-dev/amends/coordinator/store"
)

// New returns a store that keeps its cells sealed in inner. Closing it closes
// inner. Without keys it reads what was never sealed, and a Commit of anything
// is ErrMissingKey.
//
// Beside inner's errors, Load, Due and Events return ErrMissingKey, ErrDamaged
// or ErrPlain for what cannot be opened, with two exceptions, so that one bad
// row does not stand in the way of all others: Due leaves the Body of a damaged
// record sealed, which whoever decodes it will notice; and List puts the error's
// text in place of the Reason.
func New(inner store.Store, keys *Keys) store.Store { return &sealed{Store: inner, keys: keys} }

// sealed hands on what has no cells: leases, counts, purges.
type sealed struct {
	store.Store
	keys *Keys
}

// Commit implements store.Store.
func (s *sealed) Commit(ctx context.Context, b store.Batch) error {
	writes := make([]store.Write, len(b.Writes))
	for i := range b.Writes {
		var err error
		if writes[i], err = s.sealWrite(&b.Writes[i]); err != nil {
			return err
		}
	}
	return s.Store.Commit(ctx, store.Batch{Leases: b.Leases, Writes: writes})
}

// sealWrite returns a sealed copy.
func (s *sealed) sealWrite(w *store.Write) (store.Write, error) {
	v := &vault{keys: s.keys, gid: w.Record.GID}
	out := store.Write{Record: w.Record, Messages: w.Messages}
	if out.Record.Version > 1 { // fixed fields: they are in the store already
		out.Record.Definition, out.Record.Digest = nil, nil
	}
	if err := eachCell(&out.Record, v.seal); err != nil {
		return store.Write{}, err
	}
	if len(w.Events) > 0 {
		out.Events = make([]store.Event, len(w.Events))
	}
	for i := range w.Events {
		out.Events[i] = w.Events[i]
		if err := eachEventCell(&out.Events[i], v.seal); err != nil {
			return store.Write{}, err
		}
	}
	return out, nil
}

// Load implements store.Store.
func (s *sealed) Load(ctx context.Context, gid string) (store.Record, error) {
	r, err := s.Store.Load(ctx, gid)
	if err != nil {
		return store.Record{}, err
	}
	if err := s.open(&r); err != nil {
		return store.Record{}, err
	}
	return r, nil
}

// Due implements store.Store.
func (s *sealed) Due(ctx context.Context, q store.DueQuery) ([]store.Record, error) {
	recs, err := s.Store.Due(ctx, q)
	if err != nil {
		return nil, err
	}
	for i := range recs {
		shut := recs[i].Body
		if err := s.open(&recs[i]); errors.Is(err, ErrDamaged) {
			recs[i].Body = unreadable(shut)
		} else if err != nil {
			return nil, err
		}
	}
	return recs, nil
}

// unreadable is a body that nobody can take for one, whichever cell of its
// record is damaged.
func unreadable(shut []byte) []byte {
	if _, _, sealed := split(shut); sealed {
		return shut
	}
	return []byte(magic)
}

// List implements store.Store.
func (s *sealed) List(ctx context.Context, q store.Query, after *store.Cursor, limit int) ([]store.Record, error) {
	recs, err := s.Store.List(ctx, q, after, limit)
	if err != nil {
		return nil, err
	}
	for i := range recs {
		if err := s.open(&recs[i]); err != nil {
			recs[i].Reason, recs[i].Digest, recs[i].EventHash = err.Error(), nil, nil
		}
	}
	return recs, nil
}

// Events implements store.Store.
func (s *sealed) Events(ctx context.Context, gid string, after int64, limit int) ([]store.Event, error) {
	events, err := s.Store.Events(ctx, gid, after, limit)
	if err != nil {
		return nil, err
	}
	v := &vault{keys: s.keys, gid: gid}
	for i := range events {
		if err := eachEventCell(&events[i], v.open); err != nil {
			return nil, err
		}
	}
	return events, nil
}

func (s *sealed) open(r *store.Record) error {
	v := &vault{keys: s.keys, gid: r.GID}
	return eachCell(r, v.open)
}

// turn is seal or open.
type turn func(field string, n int64, cell []byte) ([]byte, error)

// eachCell turns a record's cells. The names of fields are part of what is
// sealed: they stay as they are.
func eachCell(r *store.Record, f turn) error {
	reason := []byte(r.Reason)
	err := turnAll(f, []cell{
		{"definition", 0, &r.Definition}, {"digest", 0, &r.Digest},
		{"body", r.Version, &r.Body}, {"reason", r.Version, &reason}, {"event hash", r.Version, &r.EventHash},
	})
	r.Reason = string(reason)
	return err
}

// eachEventCell turns an event's cells.
func eachEventCell(ev *store.Event, f turn) error {
	return turnAll(f, []cell{{"data", ev.Seq, &ev.Data}, {"prev", ev.Seq, &ev.Prev}, {"hash", ev.Seq, &ev.Hash}})
}

// cell is one field of a row, and the version or number that it is of.
type cell struct {
	field string
	n     int64
	at    *[]byte
}

func turnAll(f turn, cells []cell) error {
	for _, c := range cells {
		turned, err := f(c.field, c.n, *c.at)
		if err != nil {
			return err
		}
		*c.at = turned
	}
	return nil
}
