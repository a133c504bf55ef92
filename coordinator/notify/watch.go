package notify

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// Bounds of what is read of the store.
const (
	listPage    = 500
	parkedEvery = 6 // polls: no index leads to what is parked
	trailPage   = 64
	trailPages  = 32
	maxHeld     = 100
	maxErrors   = 10 // in a row of looks
)

// candidate is a transaction that is to be looked at: it may need somebody, or
// not any longer. Whoever learns something newer about it replaces it.
type candidate struct {
	observed bool    // it was ours a moment ago
	held     []Event // to be sent after the alert
}

// observeAlert notes that a transaction was seen to need somebody.
func (n *Notifier) observeAlert(key string, needs Type, operated []Event) {
	c := n.wanted[key]
	if c == nil && !n.unaware(key, needs) {
		n.pass(operated...)
		return
	}
	next := &candidate{observed: true, held: operated}
	if c != nil {
		next.held = append(slices.Clip(c.held), operated...)
	}
	if over := len(next.held) - maxHeld; over > 0 {
		n.pass(next.held[:over]...)
		next.held = next.held[over:]
	}
	n.wanted[key] = next
	signal(n.wake)
}

// watch looks at what Observe was told of, and polls, until ctx ends.
func (n *Notifier) watch(ctx context.Context) error {
	w := watcher{Notifier: n}
	next := time.NewTimer(0)
	defer next.Stop()
	for polls := 0; ; {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
			err = w.lookAtAll(ctx)
		case <-next.C:
			began := time.Now()
			err = w.poll(ctx, polls%parkedEvery == 0)
			if err == nil {
				polls++
			}
			// A poll that takes long is not to be all that the store does.
			next.Reset(max(n.cfg.PollInterval, 10*time.Since(began)))
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrClosed):
			return err
		case err != nil:
			n.cfg.Logger.Warn("amends: what is stalled or parked could not be read, trying again", "err", err)
		}
	}
}

// watcher is the one goroutine that reads the store.
type watcher struct {
	*Notifier
	ours map[int]bool // shards, as of the last poll; nil: all
}

// poll compares what the store says with what was told.
func (w *watcher) poll(ctx context.Context, parked bool) error {
	if err := w.findOurs(ctx); err != nil {
		return err
	}
	yes := true
	seen := map[string]bool{}
	if err := w.list(ctx, store.Query{Stalled: &yes}, seen); err != nil {
		return err
	}
	if parked {
		q := store.Query{Unfinished: true, States: []uint8{uint8(txn.Parked)}}
		if err := w.list(ctx, q, seen); err != nil {
			return err
		}
	}
	w.wantUnseen(seen, parked)
	return w.lookAtAll(ctx)
}

// findOurs learns which shards are this coordinator's: their leases' owner is
// its name, a hyphen and what tells processes of one name apart.
func (w *watcher) findOurs(ctx context.Context) error {
	if w.cfg.Owner == "" {
		return nil
	}
	holdings, err := w.st.Leases(ctx)
	if err != nil {
		return err
	}
	w.ours = map[int]bool{}
	for _, h := range holdings {
		if i := strings.LastIndexByte(h.Owner, '-'); i >= 0 && h.Owner[:i] == w.cfg.Owner {
			w.ours[h.Shard] = true
		}
	}
	return nil
}

func (w *watcher) owns(rec *store.Record) bool { return w.ours == nil || w.ours[rec.Shard] }

// list wants what a query finds and somebody is unaware of.
func (w *watcher) list(ctx context.Context, q store.Query, seen map[string]bool) error {
	var after *store.Cursor
	for {
		page, err := w.st.List(ctx, q, after, listPage)
		if err != nil {
			return err
		}
		w.mu.Lock()
		for i := range page {
			rec := &page[i]
			if needs := alerting(rec); needs != "" && w.owns(rec) {
				seen[rec.GID] = true
				if w.unaware(rec.GID, needs) {
					w.want(rec.GID)
				}
			}
		}
		w.mu.Unlock()
		if len(page) < listPage {
			return nil
		}
		last := &page[len(page)-1]
		after = &store.Cursor{CreatedAt: last.CreatedAt, GID: last.GID}
	}
}

// wantUnseen wants what was told and is not seen any longer.
func (w *watcher) wantUnseen(seen map[string]bool, parked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.subs {
		for key, t := range s.open {
			if !seen[key] && (parked || t == Stalled) && s.room(Resumed) {
				w.want(key)
			}
		}
	}
}

func (w *watcher) want(key string) {
	if w.wanted[key] == nil {
		w.wanted[key] = &candidate{}
	}
}

// lookAtAll looks at what is wanted.
func (w *watcher) lookAtAll(ctx context.Context) error {
	w.mu.Lock()
	keys := make([]string, 0, len(w.wanted))
	for key := range w.wanted {
		keys = append(keys, key)
	}
	w.mu.Unlock()
	var errs []error // of some, which hold up no others; the next poll tries them again
	for _, key := range keys {
		if err := w.lookAt(ctx, key); err != nil {
			errs = append(errs, err)
		}
		if len(errs) == maxErrors {
			break
		}
	}
	return errors.Join(errs...)
}

// lookAt finds out where a transaction stands and tells it. When something
// newer was observed meanwhile, what was found counts for nothing: it may be
// the past already.
func (w *watcher) lookAt(ctx context.Context, key string) error {
	w.mu.Lock()
	c := w.wanted[key]
	w.mu.Unlock()
	if c == nil {
		return nil
	}
	rec, err := w.st.Load(ctx, key)
	gone := errors.Is(err, store.ErrNotFound) // purged: whoever was alerted knows since long
	if err != nil && !gone {
		return err
	}
	needs, ours := alerting(&rec), c.observed || w.owns(&rec)
	var e Event
	if needs != "" && ours {
		if e, err = w.find(ctx, &rec, needs); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted[key] != c {
		return nil
	}
	delete(w.wanted, key)
	switch {
	case gone || needs != "" && !ours: // it is for its new owner to tell
		w.forget(key)
	case needs != "":
		w.alert(key, e)
	default:
		w.resumed(&rec)
	}
	w.pass(c.held...)
	return nil
}

// find makes the alert of the audit event that it came with: the last "stalled",
// or that with which the transaction became parked. A trail that is too long to
// be read is not: the alert then has the number of the last event.
func (w *watcher) find(ctx context.Context, rec *store.Record, needs Type) (Event, error) {
	e := eventOf(w.cfg.Source, rec, needs, rec.EventSeq, rec.UpdatedAt)
	var t trail
	for until, page := rec.EventSeq, 0; until > 0 && page < trailPages && !t.complete; page++ {
		from := max(until-trailPage, 0)
		events, err := w.st.Events(ctx, rec.GID, from, int(until-from))
		if err != nil {
			return e, err
		}
		for i := len(events) - 1; i >= 0 && !t.complete; i-- {
			t.read(&events[i], needs)
		}
		until = from
	}
	if t.found.Seq > 0 {
		e = eventOf(w.cfg.Source, rec, needs, t.found.Seq, t.found.At)
		e.Branch = t.detail.Branch
	}
	e.WaitsFor = rec.WaitsFor
	if needs == Stalled {
		e.Reason, e.LastError = t.detail.Message, t.lastError
	}
	return e, nil
}

// trail is what was found of an alert in the audit trail, read backwards.
type trail struct {
	found     store.Event
	detail    detail // of found
	lastError string // the newest words of a participant whose answer was unknown
	complete  bool
}

func (t *trail) read(ev *store.Event, needs Type) {
	d := detailOf(ev)
	if t.lastError == "" && d.Outcome == txn.Unknown.String() {
		t.lastError = d.Message
	}
	switch {
	case needs == Stalled && t.found.Seq == 0:
		if ev.Type == "stalled" {
			t.found, t.detail = *ev, d
		}
	case needs == Stalled: // the words before the stall may be all there are
		t.complete = true
	case d.State == txn.Parked.String():
		t.found, t.detail = *ev, d
	default:
		t.complete = true
	}
}
