package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// ErrAlone says that no other member takes shards.
var ErrAlone = errors.New("engine: no other member takes shards: start one, or undrain one")

// handOverGrace is how long calls under way may take before their shard goes to
// another owner all the same, which then asks again; or a quarter of LeaseTTL.
const handOverGrace = time.Second

// Drain marks this engine as one that takes no shards, and returns when it has
// given all that it had to others. It stays a member, and answers what is asked
// about transactions of others with ErrNotOwner. While no other member takes
// shards, it keeps its own and goes on serving them: Drain returns ErrAlone,
// and they go when somebody comes. Otherwise it returns the context's error.
func (e *Engine) Drain(ctx context.Context) error {
	e.cluster.draining.Store(true)
	return e.emptied(ctx)
}

// Undrain lets this engine take shards again.
func (e *Engine) Undrain(ctx context.Context) error {
	e.cluster.draining.Store(false)
	return e.Refresh(ctx)
}

// Draining reports whether Drain was called, and Undrain was not since.
func (e *Engine) Draining() bool { return e.cluster.draining.Load() }

// emptied waits until we hold no shard.
func (e *Engine) emptied(ctx context.Context) error {
	for {
		if err := e.Refresh(ctx); err != nil {
			return err
		}
		c := e.cluster.chart.Load()
		ours := func(h store.Holding) bool { return h.Owner == e.cfg.Owner }
		takes := func(m store.Member) bool { return !m.Draining && m.Name != e.cfg.Owner }
		if !slices.ContainsFunc(c.holdings, ours) {
			return nil
		}
		if !slices.ContainsFunc(c.members, takes) {
			return ErrAlone
		}
		pause(ctx, lookGap)
	}
}

// handOverAll is the beginning of the end: other members, if there are any, get
// our shards while we still serve. What they do not get in time is drained.
func (e *Engine) handOverAll(ctx context.Context) {
	e.cluster.leaving.Store(true)
	if len(e.cluster.chart.Load().members) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.DrainTimeout)
	defer cancel()
	if err := e.emptied(ctx); err != nil && !errors.Is(err, ErrAlone) {
		e.cfg.Logger.Warn("amends: not all shards were handed over before the end; others take them when it has come", "err", err)
	}
}

// balanceLoop gives away what the rounds say.
func (e *Engine) balanceLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case gifts := <-e.cluster.moves:
			e.handOver(ctx, e.choose(gifts))
			e.renewNow() // and see what is left to do
		}
	}
}

// choose returns shards for gifts, with who is to get them: the last that we
// hold.
func (e *Engine) choose(gifts []gift) map[int]string {
	e.cluster.mu.Lock()
	defer e.cluster.mu.Unlock()
	ours := slices.Sorted(maps.Keys(e.cluster.held))
	to := map[int]string{}
	for _, g := range gifts {
		n := min(g.shards, len(ours))
		for _, s := range ours[len(ours)-n:] {
			to[s] = g.to
		}
		ours = ours[:len(ours)-n]
	}
	return to
}

// handOver gives shards to other owners, each as soon as none of its calls is
// under way and nothing of it is being written, or when the grace is over. No
// call goes out from its beginning on. When it is over, none of the shards is
// in a worker's memory as it was, whatever became of it.
func (e *Engine) handOver(ctx context.Context, to map[int]string) {
	until := time.Now().Add(min(handOverGrace, e.cfg.LeaseTTL/4))
	parts := make([][]int, len(e.workers))
	for s := range to {
		i := s % len(e.workers)
		parts[i] = append(parts[i], s)
	}
	for i, w := range e.workers {
		if w.post(ctx, func() { w.beginHandOver(parts[i]) }) != nil {
			return
		}
	}
	for wait := 5 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 100*time.Millisecond) {
		rest := 0
		for i, w := range e.workers {
			if len(parts[i]) == 0 {
				continue
			}
			late := !time.Now().Before(until)
			answer := make(chan handedOver, 1)
			if w.post(ctx, func() { answer <- w.letGo(parts[i], late) }) != nil {
				return
			}
			select {
			case done := <-answer:
				e.transfer(ctx, w, done.leases, to)
				parts[i] = done.rest
				rest += len(done.rest)
			case <-ctx.Done():
				return
			}
		}
		if rest == 0 {
			return
		}
		pause(ctx, wait)
	}
}

// handedOver is what a worker let go, and what it could not yet.
type handedOver struct {
	leases []store.Lease
	rest   []int
}

// transfer makes others the owners of what a worker let go. If the store does
// not say that they are, they may be or not: the next round finds out, and
// takes up again what is still ours.
func (e *Engine) transfer(ctx context.Context, w *worker, leases []store.Lease, to map[int]string) {
	if len(leases) == 0 {
		return
	}
	byOwner := map[string][]store.Lease{}
	for _, l := range leases {
		byOwner[to[l.Shard]] = append(byOwner[to[l.Shard]], l)
	}
	c := e.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, owner := range slices.Sorted(maps.Keys(byOwner)) {
		given, err := e.store.Transfer(ctx, byOwner[owner], owner, e.cfg.LeaseTTL)
		if err != nil && ctx.Err() == nil {
			e.cfg.Logger.Warn("amends: shards could not be handed over", "to", owner, "count", len(byOwner[owner]), "err", err)
		}
		e.noteGiven(given, owner)
	}
	// In this lock: a round that still saw them as ours has been told before.
	_ = w.post(ctx, func() { // else the engine stops
		for _, l := range leases {
			delete(w.given, l.Shard)
		}
	})
}

// noteGiven draws in what others own now. The lock is held.
func (e *Engine) noteGiven(given []store.Lease, owner string) {
	if len(given) == 0 {
		return
	}
	e.meters.given.Add(uint64(len(given)))
	e.cfg.Logger.Info("amends: shards handed over", "to", owner, "count", len(given))
	c := e.cluster.chart.Load()
	holdings := slices.Clone(c.holdings)
	for _, l := range given {
		delete(e.cluster.held, l.Shard)
		if l.Shard < len(holdings) {
			holdings[l.Shard] = store.Holding{Lease: l, Owner: owner, ExpiresAt: time.Now().Add(c.ahead + e.cfg.LeaseTTL)}
		}
	}
	e.draw(holdings)
}

// beginHandOver stops the calls of shards: no new one goes out, those that no
// participant has seen are taken back, and the others are waited for.
func (w *worker) beginHandOver(shards []int) {
	for _, s := range shards {
		if sh := w.shards[s]; sh != nil {
			sh.leaving = true
		}
	}
	w.letStore(len(w.held))
	for _, t := range w.txs {
		if sh := w.shards[t.rec.Shard]; sh != nil && sh.leaving {
			w.recall(t)
			if t.calling() {
				sh.answers = append(sh.answers, t)
			}
		}
	}
}

// letGo forgets those of the shards for which nothing is left to wait. When it
// is late, calls under way are not waited for: whoever comes next asks again.
func (w *worker) letGo(shards []int, late bool) handedOver {
	var out handedOver
	writing := w.writing()
	free := map[int]bool{}
	for _, s := range shards {
		sh := w.shards[s]
		if sh == nil || !sh.leaving {
			continue // lost meanwhile
		}
		sh.answers = slices.DeleteFunc(sh.answers, func(t *tx) bool { return w.txs[t.rec.GID] != t || !t.calling() })
		sh.closed = sh.closed || late || len(sh.answers) == 0
		if !sh.closed || writing[s] {
			out.rest = append(out.rest, s)
			continue
		}
		free[s], w.given[s] = true, sh.epoch
		out.leases = append(out.leases, store.Lease{Shard: s, Epoch: sh.epoch})
	}
	if len(free) == 0 {
		return out
	}
	for _, t := range w.txs {
		if free[t.rec.Shard] {
			w.forget(t)
			w.e.watch.lose(t.rec.GID)
		}
	}
	for s := range free {
		delete(w.shards, s)
	}
	return out
}

// writing is the shards of what is being committed, or is about to be.
func (w *worker) writing() map[int]bool {
	shards := map[int]bool{}
	if w.flying != nil {
		for _, l := range w.flying.Leases {
			shards[l.Shard] = true
		}
	}
	for _, t := range w.dirty {
		shards[t.rec.Shard] = true
	}
	return shards
}
