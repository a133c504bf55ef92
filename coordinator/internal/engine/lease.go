package engine

import (
	"context"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// Times of the lease loop.
const (
	lookEvery = 500 * time.Millisecond // at the leases of all; or a quarter of LeaseTTL
	hungry    = 100 * time.Millisecond // the same of a member that is to get shards
	lookGap   = 25 * time.Millisecond  // between two looks that somebody asked for
)

// leaseLoop keeps the shards' leases and tells the workers what they own. A
// round renews, takes and balances, each quarter of LeaseTTL. In between it
// looks at what others did, so that what is free does not stay so.
func (e *Engine) leaseLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var renewed, looked time.Time
	for first := true; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-e.look:
			pause(ctx, time.Until(looked.Add(lookGap)))
		}
		waiting := e.cluster.takeWaiting()
		begun := time.Now()
		full := first || len(waiting) > 0 || e.cluster.renew.Swap(false) || begun.Sub(renewed) >= e.cfg.LeaseTTL/4
		err := e.survey(ctx, full)
		looked = time.Now()
		for _, told := range waiting {
			told <- err
		}
		switch {
		case errors.Is(err, store.ErrClosed):
			return err
		case err != nil && ctx.Err() == nil:
			e.cfg.Logger.Warn("amends: leases could not be renewed, trying again", "err", err)
		case err == nil && full:
			renewed = begun
		}
		if err == nil && first {
			first = false
			close(e.ready)
		}
		timer.Reset(e.nextLook(begun.Sub(renewed), err))
	}
}

// lookEvery is the time between two looks.
func (e *Engine) lookEvery() time.Duration { return min(e.cfg.LeaseTTL/4, lookEvery) }

// nextLook is the time until the next look or round, when the last round is so
// old and the last look ended so.
func (e *Engine) nextLook(age time.Duration, err error) time.Duration {
	every := e.lookEvery()
	if err != nil {
		return every
	}
	switch c := e.cluster.chart.Load(); {
	case c.hungry:
		every = min(every, hungry)
	case c.alone(e.cfg.Owner):
		every = e.cfg.LeaseTTL / 4 // nothing comes free, and newcomers wait for a round
	}
	return max(min(every, e.cfg.LeaseTTL/4-age), time.Millisecond)
}

// survey reads who owns what, and renews if it is time to or there is a reason.
func (e *Engine) survey(ctx context.Context, renew bool) error {
	c := e.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if !renew {
		holdings, err := e.store.Leases(ctx)
		if err != nil {
			return err
		}
		e.draw(holdings)
		if !e.concerned(time.Now()) {
			return nil
		}
	}
	return e.round(ctx)
}

// round announces us, renews what is ours, takes our share of what is nobody's,
// tells the workers, and finds out what should go to others. We join before we
// renew: when we die, our share falls to the others before our shards do.
// The leases are valid for their time from before the store was asked. The lock
// is held.
func (e *Engine) round(ctx context.Context) error {
	c := e.cluster
	joined := time.Now()
	members, err := e.store.Join(ctx, e.self(), e.cfg.LeaseTTL)
	if err != nil {
		return err
	}
	e.meet(members, joined)
	asked := time.Now()
	ours, err := e.store.Renew(ctx, e.cfg.Owner, e.cfg.LeaseTTL)
	if err != nil {
		return err
	}
	var taking error
	if want := e.wanted(members, asked) - len(ours); want > 0 {
		var more []store.Lease
		more, taking = e.store.Acquire(ctx, e.cfg.Owner, e.cfg.LeaseTTL, want)
		ours = append(ours, more...)
	}
	c.held = make(map[int]int64, len(ours))
	perWorker := make([][]store.Lease, len(e.workers))
	for _, l := range ours {
		c.held[l.Shard] = l.Epoch
		i := l.Shard % len(e.workers)
		perWorker[i] = append(perWorker[i], l)
	}
	for i, w := range e.workers {
		if err := w.post(ctx, func() { w.own(perWorker[i], asked.Add(e.cfg.LeaseTTL)) }); err != nil {
			return nil // the engine stops
		}
	}
	holdings, err := e.store.Leases(ctx)
	if err := errors.Join(taking, err); err != nil {
		return err
	}
	e.draw(holdings)
	e.noteSpare(asked)
	e.balance()
	return nil
}

// renewNow wakes the lease loop for a round.
func (e *Engine) renewNow() {
	e.cluster.renew.Store(true)
	e.lookNow()
}

// lookNow wakes the lease loop for a look.
func (e *Engine) lookNow() {
	select {
	case e.look <- struct{}{}:
	default:
	}
}

// holds reports whether our leases hold for certain. It looks at both clocks: the
// monotonic one does not see the machine sleep, the wall clock can be set back.
func (w *worker) holds(now time.Time) bool {
	return now.Before(w.validity) && now.Round(0).Before(w.validity.Round(0))
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
		if w.given[s] == epoch {
			continue
		}
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
			w.e.watch.lose(t.rec.GID)
		}
	}
}
