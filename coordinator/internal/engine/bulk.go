package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// KindBulk is the kind of a record that is a bulk: it has shard, lease, trail
// and retention as a transaction has, and so survives as one does.
const KindBulk = wire.KindBulk

// Bounds of bulks.
const (
	maxBulks      = 4   // that run at once; others wait for the sweep
	maxBulkPage   = 100 // transactions between two commits of its progress
	bulkPatience  = 10  // times a second that a transaction is asked for again while it is unavailable
	bulkQueueSize = 64
)

// Bulk is one verb for every transaction that a query selects.
type Bulk struct {
	ID     string        `json:"-"` // its gid
	Verb   amendsv1.Verb `json:"verb"`
	Filter string        `json:"filter"` // the query, in the operator's words
	Query  store.Query   `json:"query"`
	Rate   float64       `json:"rate"` // transactions per second
	Reason string        `json:"reason"`
	Actor  string        `json:"actor"`
}

// BulkProgress is how far a bulk is.
type BulkProgress struct {
	Acted     int64         `json:"acted,omitempty"`
	Skipped   int64         `json:"skipped,omitempty"` // the verb was not legal
	Failed    int64         `json:"failed,omitempty"`
	LastError string        `json:"last_error,omitempty"`
	After     *store.Cursor `json:"after,omitempty"` // where it goes on
}

// seen is how many transactions a bulk has looked at. It never falls.
func (p BulkProgress) seen() int64 { return p.Acted + p.Skipped + p.Failed }

func (p BulkProgress) detail() detail {
	return detail{Message: fmt.Sprintf("acted on %d, skipped %d, failed %d", p.Acted, p.Skipped, p.Failed)}
}

// StartBulk stores a bulk durably, then carries it out. The same id with the
// same content returns the bulk that is there and created=false; with other
// content it is ErrRequestConflict.
func (e *Engine) StartBulk(ctx context.Context, b Bulk) (store.Record, bool, error) {
	def, err := json.Marshal(b)
	if err != nil {
		return store.Record{}, false, err
	}
	rec := e.newRecord(b.ID, KindBulk, b.Verb.String(), def, 0, nil)
	if rec.Digest, err = b.digest(); err != nil {
		return store.Record{}, false, err
	}
	m := &bulkMachine{state: txn.Running}
	rec, created, err := e.start(ctx, opening{rec: rec, m: m})
	if errors.Is(err, amendsv1.ErrGIDConflict) {
		err = amendsv1.ErrRequestConflict.With("request_id was used for another bulk: use another one")
	}
	return rec, created, err
}

// digest tells a repeated start from another one. Who asks is no part of it:
// where nobody is asked who they are, that is the address they call from, and
// they may come back on another connection.
func (b Bulk) digest() ([]byte, error) {
	b.Actor = ""
	def, err := json.Marshal(b)
	return digest(KindBulk, def, nil), err
}

// CancelBulk stops a bulk; what it has done stays done, though what it did since
// its last progress is not in its figures. One that has ended is returned as it
// is.
func (e *Engine) CancelBulk(ctx context.Context, id, actor, reason string) (store.Record, error) {
	return e.tellBulk(ctx, id, bulkCancel{}, detail{Actor: actor, Reason: reason})
}

// tellBulk commits an event of a bulk.
func (e *Engine) tellBulk(ctx context.Context, id string, ev txn.Event, d detail) (store.Record, error) {
	a, err := e.command(ctx, id, func(w *worker, t *tx, say func(answer)) {
		if t.rec.Kind != KindBulk {
			say(answer{err: notFound(id)})
			return
		}
		next, err := t.m.advance(ev)
		if err == nil && next != t.m {
			d.State = next.phase().String()
			err = w.become(t, next, ev, d)
		}
		w.sayDurable(t, say, err)
	})
	return a.rec, err
}

// BulkOf is the bulk that a record is.
func (e *Engine) BulkOf(rec store.Record) (Bulk, BulkProgress, error) {
	b := Bulk{ID: rec.GID}
	if rec.Kind != KindBulk {
		return b, BulkProgress{}, notFound(rec.GID)
	}
	if err := json.Unmarshal(rec.Definition, &b); err != nil {
		return b, BulkProgress{}, fmt.Errorf("engine: bulk %q: definition: %w", rec.GID, err)
	}
	m, err := decodeBulk(rec.Body)
	if err != nil {
		return b, BulkProgress{}, err
	}
	return b, m.progress, nil
}

// bulkLoop carries out the bulks of our shards until ctx ends.
func (e *Engine) bulkLoop(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxBulks)
	running, done := map[string]bool{}, make(chan string)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case id := <-done:
			delete(running, id)
		case id := <-e.bulks:
			if running[id] {
				continue
			}
			started := g.TryGo(func() error {
				if err := e.runBulk(ctx, id); err != nil && ctx.Err() == nil {
					e.cfg.Logger.Warn("amends: a bulk was interrupted, and goes on with the next sweep", "bulk", id, "err", err)
				}
				select {
				case done <- id:
				case <-ctx.Done():
				}
				return nil
			})
			if started {
				running[id] = true
			}
		}
	}
}

// driveBulk hands a bulk to the loop. When there is no room, the sweep asks
// again.
func (w *worker) driveBulk(t *tx) {
	if t.m.phase() == txn.Running {
		select {
		case w.e.bulks <- t.rec.GID:
		default:
		}
	}
	w.leave(t)
}

// runBulk goes on with a bulk to its end, page by page. A page that a crash
// interrupts is done again: its transactions know the bulk's request.
func (e *Engine) runBulk(ctx context.Context, id string) error {
	changed, done := e.watch.subscribe(id)
	defer done()
	for {
		rec, err := e.Get(ctx, id)
		if err != nil {
			return err
		}
		b, p, err := e.BulkOf(rec)
		if err != nil || txn.State(rec.State).Finished() {
			return err
		}
		size := min(max(int(b.Rate), 1), maxBulkPage)
		page, err := e.store.List(ctx, b.Query, p.After, size)
		if err != nil {
			return err
		}
		if err := e.bulkPage(ctx, b, &p, page, changed); err != nil {
			return err
		}
		ended := len(page) < size
		if _, err := e.tellBulk(ctx, id, bulkStep{progress: p, ended: ended}, p.detail()); err != nil {
			return err
		}
	}
}

// bulkPage acts on the transactions of a page, at the bulk's rate, until the
// bulk has ended.
func (e *Engine) bulkPage(ctx context.Context, b Bulk, p *BulkProgress, page []store.Record,
	changed <-chan store.Record,
) error {
	tick := time.NewTicker(b.interval())
	defer tick.Stop()
	for _, rec := range page {
		if ended, err := nextTurn(ctx, tick.C, changed); ended || err != nil {
			return err
		}
		err := e.bulkOne(ctx, b, rec.GID)
		if passing(err) { // it alone, or everything and the bulk, too?
			if _, err := e.tellBulk(ctx, b.ID, bulkStep{progress: *p}, p.detail()); err != nil {
				return err
			}
			err = e.bulkOne(ctx, b, rec.GID)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			p.Acted++
			e.meters.bulk.Add(bulkActed)
		case errors.Is(err, amendsv1.ErrIllegalVerb), errors.Is(err, amendsv1.ErrNotFound):
			p.Skipped++
			e.meters.bulk.Add(bulkSkipped)
		default:
			p.Failed++
			e.meters.bulk.Add(bulkFailed)
			p.LastError = fmt.Sprintf("%s: %v", rec.GID, err)
		}
		p.After = &store.Cursor{CreatedAt: rec.CreatedAt, GID: rec.GID}
	}
	return nil
}

// interval is the time between two transactions, whatever the rate.
func (b Bulk) interval() time.Duration {
	return time.Duration(min(max(float64(time.Second)/b.Rate, 1), float64(time.Hour)))
}

// nextTurn waits for the tick, and reports whether the bulk has ended by then.
func nextTurn(ctx context.Context, tick <-chan time.Time, changed <-chan store.Record) (ended bool, err error) {
	select {
	case <-tick:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case rec := <-changed: // the latest
		return txn.State(rec.State).Finished(), nil
	default:
		return false, nil
	}
}

func (e *Engine) bulkOne(ctx context.Context, b Bulk, gid string) error {
	_, id, _ := wire.SplitBulk(b.ID)
	c := Command{Verb: b.Verb, GID: gid, Reason: b.Reason, Actor: b.Actor, RequestID: "bulk/" + id}
	for attempt := 1; ; attempt++ {
		err := e.actAnywhere(ctx, c)
		if !passing(err) || attempt == bulkPatience {
			return err
		}
		pause(ctx, time.Second)
	}
}

// actAnywhere has a command carried out by whoever owns its transaction.
func (e *Engine) actAnywhere(ctx context.Context, c Command) error {
	_, err := e.Act(ctx, c)
	if !errors.Is(err, amendsv1.ErrNotOwner) || e.cfg.Remote == nil {
		return err
	}
	owner, here := e.Route(c.GID)
	if here || owner.Address == "" {
		return err // on its way
	}
	return e.cfg.Remote(ctx, owner, c)
}

// passing says whether what failed is worth another attempt.
func passing(err error) bool {
	return errors.Is(err, amendsv1.ErrUnavailable) || errors.Is(err, amendsv1.ErrNotOwner)
}
