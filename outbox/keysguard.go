package outbox

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	keysTimeout = 200 * time.Millisecond // of one call
	keysPause   = time.Second            // without calls after a failed one
)

// keysGuard calls Keys such that the relay hardly notices when it is down: each
// call has a short time, a failure is followed by a pause, and an outage is
// logged once. With nil Keys it does nothing.
type keysGuard struct {
	keys   Keys
	log    *slog.Logger
	errors atomic.Uint64

	mu   sync.Mutex
	down bool
	next time.Time // no call before
}

// call runs fn unless Keys is down, and reports whether it succeeded.
func (g *keysGuard) call(ctx context.Context, fn func(ctx context.Context) error) bool {
	if g.keys == nil || !g.open() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
	defer cancel()
	err := fn(ctx)
	g.note(err)
	return err == nil
}

func (g *keysGuard) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !time.Now().Before(g.next)
}

func (g *keysGuard) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil:
		g.errors.Add(1)
		g.next = time.Now().Add(keysPause)
		if !g.down {
			g.log.Warn("outbox: relay: keys unreachable: going on without, duplicates are left to the inbox", "error", err)
		}
		g.down = true
	case g.down:
		g.down = false
		g.log.Info("outbox: relay: keys reachable again")
	}
}

func (g *keysGuard) acked(ctx context.Context, part int, ids []string) (marked map[string]bool) {
	g.call(ctx, func(ctx context.Context) (err error) {
		marked, err = g.keys.Acked(ctx, part, ids)
		return err
	})
	return marked
}

func (g *keysGuard) markAcked(ctx context.Context, part int, ids []string) {
	g.call(ctx, func(ctx context.Context) error { return g.keys.MarkAcked(ctx, part, ids) })
}

// seen answers one bool per key; all false when Keys cannot tell.
func (g *keysGuard) seen(ctx context.Context, keys []string) []bool {
	var seen []bool
	ok := g.call(ctx, func(ctx context.Context) (err error) {
		seen, err = g.keys.Seen(ctx, keys)
		return err
	})
	if !ok || len(seen) != len(keys) {
		return make([]bool, len(keys))
	}
	return seen
}

func (g *keysGuard) markSeen(ctx context.Context, keys []string) {
	g.call(ctx, func(ctx context.Context) error { return g.keys.MarkSeen(ctx, keys) })
}
