package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// band is a cluster of engines on one store. Every call is checked when it goes
// out: its sender must own the transaction's shard at that moment.
type band struct {
	t      *testing.T
	st     store.Store
	answer func(dispatch.Call) txn.Replied
	exact  bool // leases are checked against time, too
	lag    time.Duration

	mu      sync.Mutex
	players []*player
	sent    map[string]int // calls by what they ask for
	calls   sync.WaitGroup
}

// player is one engine of a band, and its dispatcher.
type player struct {
	*Engine
	b      *band
	st     *gate
	cancel context.CancelFunc
	done   chan error
	dead   atomic.Bool
	sends  atomic.Int64
}

// gate is a store that a process loses by its death, or does not reach while it
// is stopped.
type gate struct {
	store.Store
	dead *atomic.Bool
	hold atomic.Pointer[chan struct{}] // nil: it is running
	lag  time.Duration                 // of its calls
}

func (g *gate) pass() error {
	if hold := g.hold.Load(); hold != nil {
		<-*hold
	}
	time.Sleep(g.lag)
	if g.dead.Load() {
		return store.ErrClosed
	}
	return nil
}

func (g *gate) Commit(ctx context.Context, b store.Batch) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.Store.Commit(ctx, b)
}

func (g *gate) Join(ctx context.Context, m store.Member, ttl time.Duration) ([]store.Member, error) {
	if err := g.pass(); err != nil {
		return nil, err
	}
	return g.Store.Join(ctx, m, ttl)
}

func (g *gate) Leave(ctx context.Context, name string) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.Store.Leave(ctx, name)
}

func (g *gate) Renew(ctx context.Context, owner string, ttl time.Duration) ([]store.Lease, error) {
	if err := g.pass(); err != nil {
		return nil, err
	}
	defer time.Sleep(2 * g.lag) // what it says is old when it is heard
	return g.Store.Renew(ctx, owner, ttl)
}

func (g *gate) Acquire(ctx context.Context, owner string, ttl time.Duration, n int) ([]store.Lease, error) {
	if err := g.pass(); err != nil {
		return nil, err
	}
	return g.Store.Acquire(ctx, owner, ttl, n)
}

func (g *gate) Transfer(ctx context.Context, l []store.Lease, to string, ttl time.Duration) ([]store.Lease, error) {
	if err := g.pass(); err != nil {
		return nil, err
	}
	return g.Store.Transfer(ctx, l, to, ttl)
}

func (g *gate) Release(ctx context.Context, owner string) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.Store.Release(ctx, owner)
}

func (g *gate) Leases(ctx context.Context) ([]store.Holding, error) {
	if err := g.pass(); err != nil {
		return nil, err
	}
	return g.Store.Leases(ctx)
}

func newBand(t *testing.T, st store.Store, answer func(dispatch.Call) txn.Replied) *band {
	b := &band{t: t, st: st, answer: answer, sent: map[string]int{}}
	t.Cleanup(func() {
		for _, p := range b.players {
			if !p.dead.Load() {
				p.end()
			}
		}
		b.calls.Wait()
	})
	return b
}

// join adds an engine.
func (b *band) join(name string, cfg Config) *player {
	b.t.Helper()
	p := &player{b: b, done: make(chan error, 1)}
	p.st = &gate{Store: b.st, dead: &p.dead, lag: b.lag}
	cfg.Owner, cfg.Logger, cfg.Address = name, slog.New(slog.DiscardHandler), name+":1"
	e, err := New(b.t.Context(), p.st, &cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	p.Engine = e
	e.SetDispatcher(p)
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	b.calls.Go(func() { p.done <- e.Run(ctx) })
	b.mu.Lock()
	b.players = append(b.players, p)
	b.mu.Unlock()
	return p
}

// end stops a player gently.
func (p *player) end() {
	p.b.t.Helper()
	p.cancel()
	if err := <-p.done; err != nil {
		p.b.t.Errorf("%s: %v", p.Name(), err)
	}
	p.done <- nil
	p.dead.Store(true)
}

// kill ends a player as SIGKILL does.
func (p *player) kill() {
	p.dead.Store(true)
	p.cancel()
	<-p.done
	p.done <- nil
}

// stop suspends a player as SIGSTOP does; what it returns lets it go on.
func (p *player) stop() (resume func()) {
	hold := make(chan struct{})
	p.st.hold.Store(&hold)
	for _, w := range p.workers {
		_ = w.post(context.Background(), func() { <-hold }) // it runs
	}
	return func() {
		p.st.hold.Store(nil)
		close(hold)
	}
}

// Send implements Dispatcher.
func (p *player) Send(calls ...dispatch.Call) {
	if p.dead.Load() {
		return
	}
	for _, c := range calls {
		p.sends.Add(1)
		p.b.check(p, c)
		p.b.calls.Go(func() {
			r := p.b.answer(c)
			r.Branch, r.Op, r.Attempt = c.Branch, c.Op, c.Attempt
			if r.Outcome != 0 && !p.dead.Load() {
				p.Outcome(dispatch.Outcome{GID: c.GID, Replied: r})
			}
		})
	}
}

// Withdraw implements Dispatcher.
func (p *player) Withdraw(string) []dispatch.Call { return nil }

// check sees that the sender of a call owns its shard.
func (b *band) check(p *player, c dispatch.Call) {
	shard := p.shardOf(c.GID)
	all, err := b.st.Leases(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent[c.GID+"/"+c.Name+"/"+c.Op.String()]++
	if err != nil {
		b.t.Error(err)
		return
	}
	switch h := all[shard]; {
	case h.Owner != p.Name(), b.exact && !time.Now().Before(h.ExpiresAt):
		b.t.Errorf("%s sends %s of %s, whose shard is %q's until %v", p.Name(), c.Name, c.GID, h.Owner, h.ExpiresAt)
	}
}

// start starts a saga with whoever takes it, as a client does.
func (b *band) start(gid string, d *saga.Definition) {
	b.t.Helper()
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		b.mu.Lock()
		players := b.players
		b.mu.Unlock()
		for _, p := range players {
			if p.dead.Load() {
				continue
			}
			if _, here := p.Route(gid); !here {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, _, err := p.StartSaga(ctx, gid, d, nil)
			cancel()
			switch {
			case err == nil:
				return
			case !passing(err) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, store.ErrClosed):
				b.t.Errorf("start %s: %v", gid, err)
				return
			}
		}
		if time.Since(began) > time.Minute {
			b.t.Errorf("nobody took %s for a minute", gid)
			return
		}
	}
}

// ends waits until a transaction has ended, and returns its state.
func (b *band) ends(gid string) txn.State {
	b.t.Helper()
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		rec, err := b.st.Load(context.Background(), gid)
		if s := txn.State(rec.State); err == nil && s.Finished() {
			return s
		}
		if time.Since(began) > 2*time.Minute {
			b.t.Errorf("%s did not end: %v, %v", gid, txn.State(rec.State), err)
			return 0
		}
	}
}

// shares is how many shards each owns.
func (b *band) shares() map[string]int {
	b.t.Helper()
	all, err := b.st.Leases(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	n := map[string]int{}
	for _, h := range all {
		if h.Owner != "" && time.Now().Before(h.ExpiresAt) {
			n[h.Owner]++
		}
	}
	return n
}

// given is how many shards were handed over so far.
func (b *band) given() (n uint64) {
	for _, p := range b.players {
		n += p.Stats().Given
	}
	return n
}

// until polls for a condition, for a minute at most.
func (b *band) until(what string, cond func() bool) time.Duration {
	b.t.Helper()
	began := time.Now()
	for !cond() {
		if time.Since(began) > time.Minute {
			b.t.Fatalf("%s: not within a minute; shares %v", what, b.shares())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// even reports whether all shards are owned by n members in equal parts.
func (b *band) even(n int) bool {
	shares, total, least, most := b.shares(), 0, 1<<30, 0
	for _, k := range shares {
		total, least, most = total+k, min(least, k), max(most, k)
	}
	return len(shares) == n && total == b.players[0].shardCount && most <= least+1
}
