package engine

import (
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// rateWindow is over which rates are taken, in seconds.
const rateWindow = 60

// rates counts what became durable in each of the last seconds, by namespace.
type rates struct {
	mu     sync.Mutex
	counts map[string]*[rateWindow]second
	forgot int64 // when those that count no more were dropped
}

type second struct {
	unix                           int64
	started, committed, rolledBack float64
}

// note counts a version of a transaction that became durable.
func (r *rates) note(rec *store.Record, now time.Time) {
	state := txn.State(rec.State)
	if rec.Version != 1 && !state.Finished() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[string]*[rateWindow]second{}
	}
	counts := r.counts[rec.Namespace]
	if counts == nil {
		r.forget(now)
		counts = new([rateWindow]second)
		r.counts[rec.Namespace] = counts
	}
	s := &counts[now.Unix()%rateWindow]
	if s.unix != now.Unix() {
		*s = second{unix: now.Unix()}
	}
	if rec.Version == 1 {
		s.started++
	}
	switch state {
	case txn.Committed:
		s.committed++
	case txn.RolledBack:
		s.rolledBack++
	}
}

// forget drops namespaces of which nothing counts any more, once in a while:
// where nobody is asked who they are, anybody may name new ones. The lock is
// held.
func (r *rates) forget(now time.Time) {
	if now.Unix() < r.forgot+rateWindow {
		return
	}
	r.forgot = now.Unix()
	for namespace, counts := range r.counts {
		last := int64(0)
		for _, s := range counts {
			last = max(last, s.unix)
		}
		if last <= now.Unix()-rateWindow {
			delete(r.counts, namespace)
		}
	}
}

// Rates returns how many transactions of a namespace were started, committed
// and rolled back here, per second over the last minute.
func (e *Engine) Rates(namespace string) (started, committed, rolledBack float64) {
	r, since := &e.rates, time.Now().Unix()-rateWindow
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts[namespace] == nil {
		return 0, 0, 0
	}
	for _, s := range r.counts[namespace] {
		if s.unix > since {
			started += s.started / rateWindow
			committed += s.committed / rateWindow
			rolledBack += s.rolledBack / rateWindow
		}
	}
	return started, committed, rolledBack
}

// StallAfter is how long a transaction may wait for a participant before it is
// stalled; negative: for ever.
func (e *Engine) StallAfter() time.Duration { return e.cfg.StallAfter }
