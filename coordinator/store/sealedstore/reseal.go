package sealedstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// Rewriter is an inner store whose cells can be written anew where they stand,
// as those of sqlstore can.
type Rewriter interface {
	// Stale looks at up to limit transactions, in the order of their gids from
	// behind after on, and returns which of them, and which of their events,
	// have a cell that is not empty and does not begin with prefix. Of a record
	// it returns GID, Version, CreatedAt, UpdatedAt and the cells, of an event GID, Seq, At
	// and the cells. last is where to go on; empty: that was the end.
	Stale(ctx context.Context, prefix []byte, after string, limit int) (recs []store.Record, events []store.Event, last string, err error)
	// Rewrite replaces the cells of rows that are still those which Stale
	// returned, and leaves the others alone; but Digest and Definition, which are
	// fixed, whatever became of the rest of the record.
	Rewrite(ctx context.Context, recs []store.Record, events []store.Event) error
}

// Status is how far everything is sealed with the first key, as of the last
// look at all rows.
type Status struct {
	Key  string    // that seals; empty: nothing was looked at yet
	Done time.Time // when the last look ended
	// Needed counts rows, transactions and audit events, by the id of another
	// key that still seals something in them; "" is for what is not sealed. A
	// key that is not in it can be taken out of the file.
	Needed map[string]int
	// Unreadable counts those of Needed that stay as they are: their key is
	// missing, or they are damaged.
	Unreadable int
}

// Status returns how far Run is.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Needed = maps.Clone(st.Needed)
	return st
}

// How Run goes about it: little at a time, so that commits do not wait.
const (
	resealPage  = 50 // transactions, with their events
	resealPause = 10 * time.Millisecond
	resealRetry = 10 * time.Second
	resealAgain = time.Hour // others may have sealed with an older key
)

// Run seals everything with the first key, again whenever that changes, until
// ctx ends. What was sealed with another key, or not at all, it writes anew, so
// that other keys come to be needed no more: the log and Status say when. It
// returns at once when inner is no Rewriter, and an error when the store was
// closed. All coordinators of a store may run it.
func (s *Store) Run(ctx context.Context) error {
	inner, ok := s.Store.(Rewriter)
	if !ok {
		return nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	due := time.Time{}
	for {
		k, err := s.keys.current().first()
		if err == nil && s.sealsOnly(k.id) && (k.id != s.Status().Key || !time.Now().Before(due)) {
			due = time.Now().Add(resealAgain)
			if err := s.reseal(ctx, inner, k.id); errors.Is(err, store.ErrClosed) {
				return err
			} else if err != nil && ctx.Err() == nil {
				s.log.Warn("sealedstore: sealing with the first key was interrupted, trying again", "key", k.id, "err", err)
				due = time.Now().Add(resealRetry)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sealsOnly reports whether no commit is under way that another key has sealed.
func (s *Store) sealsOnly(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, n := range s.sealing {
		if n > 0 && other != id {
			return false
		}
	}
	return true
}

// reseal seals with a key what is not, until there is nothing left of that but
// what cannot be read: a row that moved on meanwhile takes another time.
func (s *Store) reseal(ctx context.Context, inner Rewriter, id string) error {
	for sealed := 0; ; {
		look := &pass{store: s, inner: inner, id: id}
		if err := look.run(ctx, false); err != nil {
			return err
		}
		if len(look.needed) == 0 {
			s.note(id, look)
			s.log.Info("sealedstore: everything is sealed with the first key: the other ones can be taken out of the file, "+
				"if no other coordinator seals with them", "key", id, "rows_sealed_anew", sealed)
			return nil
		}
		s.log.Info("sealedstore: sealing with the first key what is not", "key", id, "rows_by_key", look.needed)
		p := &pass{store: s, inner: inner, id: id}
		if err := p.run(ctx, true); err != nil {
			return err
		}
		if sealed += p.done; p.done == 0 {
			s.note(id, p)
			s.log.Error("sealedstore: rows cannot be read, and stay sealed with keys that have to be kept or put back",
				"rows_by_key", p.needed, "some_gids", p.some, "err", p.why)
			return nil
		}
	}
}

func (s *Store) note(id string, p *pass) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = Status{Key: id, Done: time.Now(), Needed: p.needed, Unreadable: p.unreadable}
}

// pass goes through all rows once.
type pass struct {
	store *Store
	inner Rewriter
	id    string

	needed     map[string]int
	done       int
	unreadable int
	some       []string // gids of rows that cannot be read
	why        error    // of the first
}

func (p *pass) run(ctx context.Context, write bool) error {
	p.needed = map[string]int{}
	prefix := append(append([]byte(magic), byte(len(p.id))), p.id...)
	for after := ""; ; {
		recs, events, last, err := p.inner.Stale(ctx, prefix, after, resealPage)
		if err != nil {
			return err
		}
		if write {
			err = p.rewrite(ctx, recs, events)
		} else {
			p.count(recs, events)
		}
		if err != nil || last == "" {
			return err
		}
		after = last
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(resealPause):
		}
	}
}

func (p *pass) count(recs []store.Record, events []store.Event) {
	for i := range recs {
		p.need(func(see turn) error { return eachCell(&recs[i], see) })
	}
	for i := range events {
		p.need(func(see turn) error { return eachEventCell(&events[i], see) })
	}
}

// need counts a row once for each other key of its cells.
func (p *pass) need(each func(turn) error) {
	keys := map[string]bool{}
	_ = each(func(_ string, _ int64, cell []byte) ([]byte, error) { // which never fails
		if id, _, _ := split(cell); len(cell) > 0 && id != p.id {
			keys[id] = true
		}
		return cell, nil
	})
	for id := range keys {
		p.needed[id]++
	}
}

// rewrite seals rows with the first key, and counts those that it cannot read.
func (p *pass) rewrite(ctx context.Context, recs []store.Record, events []store.Event) error {
	var sealedRecs []store.Record
	var sealedEvents []store.Event
	for i := range recs {
		if r := recs[i]; p.turn(r.GID, func(f turn) error { return eachCell(&r, f) }) {
			sealedRecs = append(sealedRecs, r)
		} else {
			p.count(recs[i:i+1], nil)
		}
	}
	for i := range events {
		if ev := events[i]; p.turn(ev.GID, func(f turn) error { return eachEventCell(&ev, f) }) {
			sealedEvents = append(sealedEvents, ev)
		} else {
			p.count(nil, events[i:i+1])
		}
	}
	if len(sealedRecs)+len(sealedEvents) == 0 {
		return nil
	}
	p.done += len(sealedRecs) + len(sealedEvents)
	return p.inner.Rewrite(ctx, sealedRecs, sealedEvents)
}

// turn opens the cells of a row, and seals them anew: those that are plain too,
// unless only sealed ones count, when nobody knows who put them there.
func (p *pass) turn(gid string, each func(turn) error) bool {
	v := p.store.vault(gid)
	err := each(v.open)
	if err == nil {
		err = each(v.seal)
	}
	if err == nil {
		return true
	}
	p.unreadable++
	if p.why == nil {
		p.why = fmt.Errorf("the first of %w", err)
	}
	if len(p.some) < 5 && !slices.Contains(p.some, gid) {
		p.some = append(p.some, gid)
	}
	return false
}
