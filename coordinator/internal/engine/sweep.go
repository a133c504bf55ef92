package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// sweepLoop finds what is due and not in memory, for ever: after a crash it is
// everything, later what slept, and now and then everything again, whatever
// may have been missed.
func (w *worker) sweepLoop(ctx context.Context) error {
	tick := time.NewTicker(w.e.cfg.SweepInterval)
	defer tick.Stop()
	var seen, full time.Time // everything due before seen has been found; when all was last looked at
	var took time.Duration   // by the last look at all, which reads what is in memory, too
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.kick:
		case <-tick.C:
		}
		now := time.Now()
		from := seen
		if now.Sub(full) >= max(fullSweep, sweepPace*took) {
			from = time.Time{}
		}
		done, err := w.sweep(ctx, from, now.Add(horizon))
		if errors.Is(err, store.ErrClosed) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			w.log.Warn("amends: sweep failed, trying again", "err", err)
		}
		if done && err == nil {
			seen = now.Add(horizon)
			if from.IsZero() {
				full, took = now, time.Since(now)
			}
		}
	}
}

func (w *worker) sweepNow() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// sweep loads what is due in [from, until), and everything due before until of
// shards that are new. It reports whether it came to the end.
func (w *worker) sweep(ctx context.Context, from, until time.Time) (bool, error) {
	plan, err := w.plan(ctx)
	if err != nil {
		return false, err
	}
	done, err := w.pages(ctx, store.DueQuery{Shards: plan.fresh, Until: until, Limit: sweepPage})
	if !done || err != nil {
		return false, err
	}
	if err := w.post(ctx, func() { w.markSwept(plan) }); err != nil {
		return false, err
	}
	if plan.again {
		from = time.Time{}
	}
	return w.pages(ctx, store.DueQuery{Shards: plan.known, From: from, Until: until, Limit: sweepPage})
}

// sweepPlan is which of a worker's shards have never been swept, and which have.
type sweepPlan struct {
	seq          uint64 // the departure count when it was made
	fresh, known []int
	again        bool // what was set aside is looked for, too
}

func (w *worker) plan(ctx context.Context) (sweepPlan, error) {
	answer := make(chan sweepPlan, 1)
	err := w.post(ctx, func() {
		p := sweepPlan{seq: w.gone.count.Load(), again: w.resumes()}
		for s, sh := range w.shards {
			if sh.swept {
				p.known = append(p.known, s)
			} else {
				p.fresh = append(p.fresh, s)
			}
		}
		answer <- p
	})
	if err != nil {
		return sweepPlan{}, err
	}
	select {
	case p := <-answer:
		return p, nil
	case <-ctx.Done():
		return sweepPlan{}, ctx.Err()
	}
}

// markSwept notes what was swept, but for shards that were acquired anew
// meanwhile: what was read of those was of no use.
func (w *worker) markSwept(plan sweepPlan) {
	for _, s := range plan.fresh {
		if sh := w.shards[s]; sh != nil && sh.since <= plan.seq {
			sh.swept = true
		}
	}
}

// pages adopts what a query finds, page by page, and reports whether there was
// room for all of it.
func (w *worker) pages(ctx context.Context, q store.DueQuery) (bool, error) {
	for len(q.Shards) > 0 {
		seq := w.gone.count.Load()
		recs, err := w.e.store.Due(ctx, q)
		if err != nil {
			return false, err
		}
		for few := range slices.Chunk(recs, sweepChunk) {
			if roomy, err := w.take(ctx, few, seq); !roomy || err != nil {
				return false, err
			}
		}
		if len(recs) < q.Limit {
			break
		}
		last := recs[len(recs)-1]
		q.AfterShard, q.AfterNext, q.AfterGID = last.Shard, last.NextAt, last.GID
	}
	return true, nil
}

// take has the worker resume a few of what the sweep read when the departure
// count was seq, and reports whether there was room for all of them. What costs
// most of it, to decode them, is done here: the worker has others to serve.
func (w *worker) take(ctx context.Context, recs []store.Record, seq uint64) (bool, error) {
	found := make([]revived, 0, len(recs))
	for _, rec := range recs {
		if _, known := w.e.live.Load(rec.GID); !known {
			found = append(found, revive(rec))
		}
	}
	if len(found) == 0 {
		return true, nil
	}
	room := make(chan bool, 1)
	if err := w.post(ctx, func() { room <- w.resume(found, seq) }); err != nil {
		return false, err
	}
	select {
	case roomy := <-room:
		return roomy, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// resume takes what the sweep found into memory, and reports whether there was
// room for all of it.
func (w *worker) resume(found []revived, seq uint64) bool {
	now := time.Now()
	for _, r := range found {
		if w.txs[r.tx.rec.GID] != nil {
			continue
		}
		if w.draining || w.e.owed.full() {
			return false
		}
		t, err := w.load(r, seq)
		if err != nil {
			if !errors.Is(err, errStale) && !errors.Is(err, errElsewhere) {
				w.log.Error("amends: a transaction cannot be loaded; the others go on", "gid", r.tx.rec.GID, "err", err)
			}
			continue
		}
		if t.fresh && len(t.calls) == 0 {
			t.schedule(now, w.rnd.Float64)
		}
		w.expire(t, now)
		w.stall(t, now)
		if t.durable() {
			w.act(t, now)
		}
	}
	return true
}

// revived is a transaction as it was read from the store, or why none can be
// made of that.
type revived struct {
	tx  *tx
	err error
}

// revive decodes a record. It may be called beside the worker.
func revive(rec store.Record) revived {
	t := &tx{rec: rec, fresh: true, loaded: rec.Version, begun: true}
	m, own, err := decode(&t.rec)
	if err != nil {
		return revived{t, err}
	}
	t.m = m
	err = t.restore(own)
	t.base = t.m
	return revived{t, err}
}

// load takes a transaction into memory that was read when the departure count
// was seq. errStale says that it may be out of date, errElsewhere that it is not
// ours.
func (w *worker) load(r revived, seq uint64) (*tx, error) {
	rec := &r.tx.rec
	sh := w.shards[rec.Shard]
	switch {
	case sh.shut():
		return nil, errElsewhere
	case seq < sh.since || !w.gone.current(rec.GID, seq):
		return nil, errStale
	case r.err != nil:
		return nil, r.err
	}
	w.adopt(r.tx, w.e.owed)
	return r.tx, nil
}

// purgeLoop deletes finished transactions whose retention has passed.
func (e *Engine) purgeLoop(ctx context.Context) error {
	if e.cfg.Retention < 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for {
			n, err := e.store.Purge(ctx, time.Now().Add(-e.cfg.Retention), purgePage)
			if err != nil {
				e.cfg.Logger.Warn("amends: finished transactions could not be purged, trying again", "err", err)
			}
			if err != nil || n < purgePage {
				break
			}
		}
	}
}
