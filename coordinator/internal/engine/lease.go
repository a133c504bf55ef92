package engine

import (
	"context"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// leaseLoop keeps the shards' leases and tells the workers what they own.
func (e *Engine) leaseLoop(ctx context.Context) error {
	tick := time.NewTicker(e.cfg.LeaseTTL / 4)
	defer tick.Stop()
	for first := true; ; {
		switch err := e.lease(ctx); {
		case errors.Is(err, store.ErrClosed):
			return err
		case err != nil && ctx.Err() == nil:
			e.cfg.Logger.Warn("amends: leases could not be renewed, trying again", "err", err)
		case err == nil && first:
			first = false
			close(e.ready)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-e.renew:
		}
	}
}

// lease renews what is ours, takes what is nobody's, and tells the workers.
// The leases are valid for their time from before the store was asked.
func (e *Engine) lease(ctx context.Context) error {
	asked := time.Now()
	ours, err := e.store.Renew(ctx, e.cfg.Owner, e.cfg.LeaseTTL)
	if err != nil {
		return err
	}
	if len(ours) < e.shardCount {
		more, err := e.store.Acquire(ctx, e.cfg.Owner, e.cfg.LeaseTTL, e.shardCount-len(ours))
		if err != nil {
			return err
		}
		ours = append(ours, more...)
	}
	perWorker := make([][]store.Lease, len(e.workers))
	for _, l := range ours {
		i := l.Shard % len(e.workers)
		perWorker[i] = append(perWorker[i], l)
	}
	for i, w := range e.workers {
		if err := w.post(ctx, func() { w.own(perWorker[i], asked.Add(e.cfg.LeaseTTL)) }); err != nil {
			return nil // the engine stops
		}
	}
	return nil
}

// renewNow wakes the lease loop.
func (e *Engine) renewNow() {
	select {
	case e.renew <- struct{}{}:
	default:
	}
}

// own takes over new shards and drops those that are gone.
func (w *worker) own(leases []store.Lease, until time.Time) {
	w.validity = until
	held := make(map[int]int64, len(leases))
	for _, l := range leases {
		held[l.Shard] = l.Epoch
	}
	lost := map[int]bool{}
	for s, sh := range w.shards {
		if held[s] != sh.epoch {
			lost[s] = true
		}
	}
	w.drop(lost)
	for s, epoch := range held {
		if w.shards[s] == nil {
			w.e.meters.acquired.Add(1)
			w.shards[s] = &shard{epoch: epoch, since: w.gone.count.Add(1)}
			w.sweepNow()
		}
	}
}

// drop forgets shards with everything of theirs in memory.
func (w *worker) drop(lost map[int]bool) {
	if len(lost) == 0 {
		return
	}
	w.log.Warn("amends: shards lost to another coordinator", "count", len(lost))
	for s := range lost {
		w.e.meters.loses(w.shards[s])
		delete(w.shards, s)
	}
	for _, t := range w.txs {
		if lost[t.rec.Shard] {
			w.giveUp(t, errElsewhere)
		}
	}
}
