package engine

import (
	"context"
	"errors"
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
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.kick:
		case <-tick.C:
		}
		now := time.Now()
		from := seen
		if now.Sub(full) >= fullSweep {
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
				full = now
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
		room := make(chan bool, 1)
		if err := w.post(ctx, func() { room <- w.resume(recs, seq) }); err != nil {
			return false, err
		}
		select {
		case ok := <-room:
			if !ok {
				return false, nil
			}
		case <-ctx.Done():
			return false, ctx.Err()
		}
		if len(recs) < q.Limit {
			break
		}
		last := recs[len(recs)-1]
		q.AfterShard, q.AfterNext, q.AfterGID = last.Shard, last.NextAt, last.GID
	}
	return true, nil
}

// resume takes what the sweep found into memory, and reports whether there was
// room for all of it.
func (w *worker) resume(recs []store.Record, seq uint64) bool {
	now := time.Now()
	for _, rec := range recs {
		if w.txs[rec.GID] != nil {
			continue
		}
		if w.draining || w.e.owed.full() {
			return false
		}
		t, err := w.load(rec, seq)
		if err != nil {
			if !errors.Is(err, errStale) && !errors.Is(err, errElsewhere) {
				w.log.Error("amends: a transaction cannot be loaded; the others go on", "gid", rec.GID, "err", err)
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

// load takes a record into memory that was read when the departure count was
// seq. errStale says that it may be out of date, errElsewhere that it is not
// ours.
func (w *worker) load(rec store.Record, seq uint64) (*tx, error) {
	sh := w.shards[rec.Shard]
	switch {
	case sh.shut():
		return nil, errElsewhere
	case seq < sh.since || !w.gone.current(rec.GID, seq):
		return nil, errStale
	}
	m, own, err := decode(&rec)
	if err != nil {
		return nil, err
	}
	t := &tx{rec: rec, m: m, fresh: true, loaded: rec.Version}
	if err := t.restore(own); err != nil {
		return nil, err
	}
	t.base = t.m
	w.adopt(t, w.e.owed)
	return t, nil
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
