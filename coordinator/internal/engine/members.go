package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// cluster is what an engine knows of the others, and they of it.
type cluster struct {
	started  time.Time
	chart    atomic.Pointer[chart] // never nil
	draining atomic.Bool           // an operator's word
	leaving  atomic.Bool           // Run ends
	renew    atomic.Bool           // the next look is to be a round
	moves    chan []gift           // to the balance loop

	mu    turn               // one at a time speaks to the store about leases
	held  map[int]int64      // our shards with their epochs, as of the last round; guarded by mu
	known map[life]time.Time // since when others are there without a gap; guarded by mu
	spare time.Time          // since when shards are nobody's; zero: none is; guarded by mu

	asking  sync.Mutex
	waiting []chan error // for a round that has not begun; guarded by asking
}

func newCluster() *cluster {
	c := &cluster{mu: make(turn, 1), started: stamp(time.Now()), known: map[life]time.Time{}, moves: make(chan []gift)}
	c.chart.Store(&chart{})
	return c
}

// turn is a mutex that is held while the store is asked: to wait for it is to
// wait for a channel, so that the virtual time of tests goes on meanwhile.
type turn chan struct{}

// Lock implements sync.Locker.
func (t turn) Lock() { t <- struct{}{} }

// Unlock implements sync.Locker.
func (t turn) Unlock() { <-t }

// life is one run of a member: it may come back before anybody missed it.
type life struct {
	name    string
	started time.Time
}

func lifeOf(m store.Member) life { return life{m.Name, m.StartedAt} }

// chart is who is there and who owns what, as last read. It does not change.
type chart struct {
	members  []store.Member  // by name
	holdings []store.Holding // by shard; nil before the first look
	ahead    time.Duration   // the store's clock before ours
	hungry   bool            // we have less than others, and are to get more
}

// free reports whether nobody owns what is held so.
func (c *chart) free(h *store.Holding, now time.Time) bool {
	return h.Owner == "" || !now.Add(c.ahead).Before(h.ExpiresAt)
}

// alone reports whether there is nobody but self, and nothing that is not its.
func (c *chart) alone(self string) bool {
	others := func(h store.Holding) bool { return h.Owner != self }
	return len(c.members) < 2 && !slices.ContainsFunc(c.holdings, others)
}

// member returns one by name; one that is unknown has no more than its name.
func (c *chart) member(name string) store.Member {
	for i := range c.members {
		if c.members[i].Name == name {
			return c.members[i]
		}
	}
	return store.Member{Name: name}
}

// Name is the owner of this engine's leases.
func (e *Engine) Name() string { return e.cfg.Owner }

// Members returns who was there at the last round, a quarter of LeaseTTL ago at
// most when all is well, by name: this engine among them, and none before its
// first round.
func (e *Engine) Members() []store.Member { return slices.Clone(e.cluster.chart.Load().members) }

// Holdings returns who owned which shard when the engine last looked, by shard;
// nil before it first did.
func (e *Engine) Holdings() []store.Holding { return slices.Clone(e.cluster.chart.Load().holdings) }

// Route returns who owns the shard of a transaction, or of a bulk, as far as is
// known, and whether that is this engine. The zero Member is nobody, for the
// moment; one with no more than a Name is unknown, and cannot be reached. It
// asks nobody and does not block.
func (e *Engine) Route(key string) (owner store.Member, here bool) {
	c, shard := e.cluster.chart.Load(), e.shardOf(key)
	if shard >= len(c.holdings) || c.free(&c.holdings[shard], time.Now()) {
		return store.Member{}, false
	}
	name := c.holdings[shard].Owner
	return c.member(name), name == e.cfg.Owner
}

// Refresh reads members and leases anew. Callers share what is read, at most
// every 25 ms.
func (e *Engine) Refresh(ctx context.Context) error {
	told := make(chan error, 1)
	e.cluster.asking.Lock()
	e.cluster.waiting = append(e.cluster.waiting, told)
	e.cluster.asking.Unlock()
	e.lookNow()
	select {
	case err := <-told:
		if err != nil {
			return unavailable(err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-e.stopped:
		return errStopped
	}
}

func (c *cluster) takeWaiting() []chan error {
	c.asking.Lock()
	defer c.asking.Unlock()
	waiting := c.waiting
	c.waiting = nil
	return waiting
}

// self is this engine as others are to see it.
func (e *Engine) self() store.Member {
	return store.Member{Name: e.cfg.Owner, Address: e.cfg.Address, Version: e.cfg.Version,
		Draining: e.Draining() || e.cluster.leaving.Load(), StartedAt: e.cluster.started}
}

// meet notes who is there. We asked at the given time. The lock is held.
func (e *Engine) meet(members []store.Member, asked time.Time) {
	c := e.cluster
	there := make(map[life]bool, len(members))
	next := *c.chart.Load()
	next.members = members
	for _, m := range members {
		there[lifeOf(m)] = true
		if c.known[lifeOf(m)].IsZero() {
			c.known[lifeOf(m)] = asked
		}
		if m.Name == e.cfg.Owner {
			next.ahead = m.ExpiresAt.Add(-e.cfg.LeaseTTL).Sub(asked)
		}
	}
	maps.DeleteFunc(c.known, func(l life, _ time.Time) bool { return !there[l] })
	c.chart.Store(&next)
}

// draw notes who owns what. The lock is held.
func (e *Engine) draw(holdings []store.Holding) {
	next := *e.cluster.chart.Load()
	next.holdings = holdings
	e.cluster.chart.Store(&next)
}

// concerned reports whether a look calls for a round: something is free, or
// what is ours has changed. The lock is held.
func (e *Engine) concerned(now time.Time) bool {
	c, ours := e.cluster.chart.Load(), 0
	for i := range c.holdings {
		h := &c.holdings[i]
		if c.free(h, now) {
			return true
		}
		if h.Owner != e.cfg.Owner {
			continue
		}
		if ours++; e.cluster.held[h.Shard] != h.Epoch {
			return true
		}
	}
	return ours != len(e.cluster.held)
}

// noteSpare notes whether shards are nobody's, which others should take. The
// lock is held.
func (e *Engine) noteSpare(now time.Time) {
	c := e.cluster.chart.Load()
	free := func(h store.Holding) bool { return c.free(&h, now) }
	switch spare := slices.ContainsFunc(c.holdings, free); {
	case !spare:
		e.cluster.spare = time.Time{}
	case e.cluster.spare.IsZero():
		e.cluster.spare = now
	}
}

// wanted is how many shards we want to have if nobody owns them: our share, or
// all when others have left theirs for longer than between two looks. The lock
// is held.
func (e *Engine) wanted(members []store.Member, now time.Time) int {
	share := e.share(members)
	if spare := e.cluster.spare; share > 0 && !spare.IsZero() && now.Sub(spare) >= e.lookEvery() {
		return e.shardCount
	}
	return share
}

// share is how many shards each member is to take that nobody owns. Those that
// drain take none, unless all do.
func (e *Engine) share(members []store.Member) int {
	self := e.self()
	takers := 0
	for _, m := range members {
		if !m.Draining {
			takers++
		}
	}
	switch {
	case e.cluster.leaving.Load():
		return 0
	case takers == 0:
		takers = len(members)
	case self.Draining:
		return 0
	}
	return (e.shardCount + takers - 1) / max(takers, 1)
}
