package sealedstore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// New returns a store that keeps its cells sealed in inner. Closing it closes
// inner. Without keys it reads what was never sealed, and a Commit of anything
// is ErrMissingKey. A nil cfg means the defaults.
//
// Beside inner's errors, Load and Events return ErrMissingKey, ErrDamaged or
// ErrPlain for what cannot be opened. So that one bad row does not stand in the
// way of all others, Due and List do not: Due leaves the Body of a record that
// is damaged, or plain where only sealed ones count, unreadable, which whoever
// decodes it will notice; it leaves out those whose key is missing, which are
// due as soon as it is back, and the log names the key and some of them; and
// List puts the error's text in place of the Reason.
func New(inner store.Store, keys *Keys, cfg *Config) *Store {
	s := &Store{Store: inner, keys: keys, log: slog.Default(), lost: map[string]time.Time{}, sealing: map[string]int{}}
	if cfg != nil && cfg.Logger != nil {
		s.log = cfg.Logger
	}
	return s
}

// Config holds what may be left out.
type Config struct {
	// Logger takes what operators should know. Default slog.Default().
	Logger *slog.Logger
}

// Store seals. It hands on to the store within what has no cells: leases,
// counts, purges.
type Store struct {
	store.Store
	keys *Keys
	log  *slog.Logger

	mu      sync.Mutex
	lost    map[string]time.Time // when the log last named a key that is missing
	sealing map[string]int       // commits under way, by the key that sealed them
	status  Status
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, b store.Batch) error {
	keys := s.keys.current()
	if k, err := keys.first(); err == nil {
		s.seals(k.id, 1)
		defer s.seals(k.id, -1)
	}
	writes := make([]store.Write, len(b.Writes))
	for i := range b.Writes {
		var err error
		if writes[i], err = sealWrite(keys, &b.Writes[i]); err != nil {
			return err
		}
	}
	return s.Store.Commit(ctx, store.Batch{Leases: b.Leases, Writes: writes})
}

// seals counts commits under way, so that Run misses none of an older key's.
func (s *Store) seals(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealing[id] += n
}

// sealWrite returns a sealed copy.
func sealWrite(keys *Keys, w *store.Write) (store.Write, error) {
	v := &vault{keys: keys, gid: w.Record.GID}
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
func (s *Store) Load(ctx context.Context, gid string) (store.Record, error) {
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
func (s *Store) Due(ctx context.Context, q store.DueQuery) ([]store.Record, error) {
	var found []store.Record
	lost := map[string][]string{} // gids by the key that they need
	defer func() { s.tell(lost) }()
	for {
		page := q
		page.Limit = q.Limit - len(found)
		recs, err := s.Store.Due(ctx, page)
		if err != nil {
			return nil, err
		}
		for i := range recs {
			shut := recs[i].Body
			err := s.open(&recs[i])
			var missing *missingKeyError
			switch {
			case errors.As(err, &missing):
				lost[missing.id] = append(lost[missing.id], recs[i].GID)
				continue
			case errors.Is(err, ErrDamaged), errors.Is(err, ErrPlain):
				recs[i].Body = unreadable(shut)
			case err != nil:
				return nil, err
			}
			found = append(found, recs[i])
		}
		if len(recs) < page.Limit || len(found) >= q.Limit {
			return found, nil
		}
		last := recs[len(recs)-1]
		q.AfterShard, q.AfterNext, q.AfterGID = last.Shard, last.NextAt, last.GID
	}
}

// tellEvery is how often the log names a key that is missing.
const tellEvery = time.Minute

// tell names keys that are missing, and some of those that need them.
func (s *Store) tell(lost map[string][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, gids := range lost {
		if time.Since(s.lost[id]) >= tellEvery {
			s.lost[id] = time.Now()
			s.log.Error("sealedstore: a key is missing, and unfinished transactions wait until it is back in the file of keys; all others go on",
				"key", id, "transactions", len(gids), "some_gids", gids[:min(len(gids), 5)])
		}
	}
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
func (s *Store) List(ctx context.Context, q store.Query, after *store.Cursor, limit int) ([]store.Record, error) {
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
func (s *Store) Events(ctx context.Context, gid string, after int64, limit int) ([]store.Event, error) {
	events, err := s.Store.Events(ctx, gid, after, limit)
	if err != nil {
		return nil, err
	}
	v := s.vault(gid)
	for i := range events {
		if err := eachEventCell(&events[i], v.open); err != nil {
			return nil, err
		}
	}
	return events, nil
}

func (s *Store) open(r *store.Record) error { return eachCell(r, s.vault(r.GID).open) }

func (s *Store) vault(gid string) *vault { return &vault{keys: s.keys.current(), gid: gid} }

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
