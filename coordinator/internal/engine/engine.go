package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
)

// Dispatcher brings calls to participants. Neither method blocks.
type Dispatcher interface {
	// Send hands calls over; each is answered, maybe more than once, through
	// Engine.Outcome.
	Send(calls ...dispatch.Call)
	// Withdraw forgets the calls of a transaction that no participant has
	// seen, and returns them.
	Withdraw(gid string) []dispatch.Call
}

// Engine drives the transactions of one store.
type Engine struct {
	cfg        Config
	store      store.Store
	dispatcher Dispatcher
	shardCount int
	workers    []*worker
	watch      watch
	rates      rates
	meters     *meters
	bulks      chan string  // ids of those to be carried out
	started    *room        // for what was started here
	starting   atomic.Int64 // starts that are not stored yet
	live       sync.Map     // gids in memory, for those who are not their worker
	quotas     *quotas      // of namespaces
	spans      spans
	owed       *room // for what came from the store, which is owed and comes before what is new
	cluster    *cluster
	look       chan struct{} // wakes the lease loop
	ready      chan struct{} // closed when the workers first know what they own
	draining   atomic.Bool
	stopped    chan struct{} // closed when the workers have stopped
}

// New makes an engine on a store. It does nothing before Run. SetDispatcher
// must be called before Run.
func New(ctx context.Context, st store.Store, cfg *Config) (*Engine, error) {
	full, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n, err := st.Shards(ctx)
	if err != nil {
		return nil, fmt.Errorf("engine: the store does not answer: %w", err)
	}
	e := &Engine{cfg: full, store: st, shardCount: n, meters: newMeters(),
		bulks:   make(chan string, bulkQueueSize),
		cluster: newCluster(),
		look:    make(chan struct{}, 1), ready: make(chan struct{}), stopped: make(chan struct{}),
		quotas: newQuotas(full.Quota), spans: spans{full.Tracer}, started: newRoom(full.MaxLive), owed: newRoom(owedFactor * full.MaxLive)}
	for range full.Workers {
		e.workers = append(e.workers, newWorker(e))
	}
	return e, nil
}

// SetDispatcher names who brings calls to participants. Engine and dispatcher
// need each other, so one of them comes later.
func (e *Engine) SetDispatcher(d Dispatcher) { e.dispatcher = d }

// Run drives transactions until ctx ends, then drains: it gives its shards to
// other members, if there are any, while it still serves; then it takes no new
// work, waits a bounded time for the calls under way, commits what came of them,
// and gives its leases back. It returns an error when the store was closed under
// it. An engine runs once.
func (e *Engine) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(inner)
	for _, w := range e.workers {
		g.Go(func() error { return w.run(gctx) })
		g.Go(func() error { return w.commitLoop(gctx) })
		g.Go(func() error { return w.sweepLoop(gctx) })
	}
	g.Go(func() error { return e.leaseLoop(gctx) })
	g.Go(func() error { return e.balanceLoop(gctx) })
	g.Go(func() error { return e.purgeLoop(gctx) })
	g.Go(func() error { return e.bulkLoop(gctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			e.handOverAll(gctx)
			e.drain(gctx)
		case <-gctx.Done():
		}
		stop()
		return nil
	})
	err := g.Wait()
	close(e.stopped)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err = errors.Join(e.store.Release(release, e.cfg.Owner), e.store.Leave(release, e.cfg.Owner))
	if err != nil && !errors.Is(err, store.ErrClosed) {
		e.cfg.Logger.Warn("amends: leases were not given back and will expire", "err", err)
	}
	return nil
}

// drain stops what is new and waits until nothing is under way.
func (e *Engine) drain(ctx context.Context) {
	e.draining.Store(true)
	ctx, cancel := context.WithTimeout(ctx, e.cfg.DrainTimeout)
	defer cancel()
	for _, w := range e.workers { // all of them, before one of them is waited for
		if w.post(ctx, w.beginDrain) != nil {
			return
		}
	}
	for _, w := range e.workers {
		for quiet := false; !quiet; {
			answer := make(chan bool, 1)
			if w.post(ctx, func() { answer <- w.quiet() }) != nil {
				return
			}
			select {
			case quiet = <-answer:
			case <-ctx.Done():
				return
			}
			if !quiet {
				pause(ctx, 5*time.Millisecond)
			}
		}
	}
}

// beginDrain stops calls: no new one goes out, and those that no participant
// has seen are not waited for.
func (w *worker) beginDrain() {
	w.draining = true
	w.letStore(len(w.held))
	for _, t := range w.txs {
		w.recall(t)
	}
}

// quiet reports whether no call and no commit is under way.
func (w *worker) quiet() bool {
	if w.flying != nil || len(w.dirty) > 0 || len(w.held) > 0 {
		return false
	}
	for _, t := range w.txs {
		if t.calling() {
			return false
		}
	}
	return true
}

// Live returns how many transactions are in memory.
func (e *Engine) Live() int { return e.started.count() + e.owed.count() }

// Outcome takes how a call ended. It waits while the transaction's worker is
// busy, which is back-pressure on the stream that it came from.
func (e *Engine) Outcome(o dispatch.Outcome) {
	w := e.workerOf(e.shardOf(o.GID))
	_ = w.post(context.Background(), func() { w.outcome(o) }) // an engine that has stopped needs no outcome
}

func (e *Engine) shardOf(gid string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(gid)) // never fails
	return int(h.Sum64() % uint64(e.shardCount))
}

func (e *Engine) workerOf(shard int) *worker { return e.workers[shard%len(e.workers)] }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
