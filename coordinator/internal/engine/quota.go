package engine

import (
	"strconv"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// Quota bounds what one namespace takes of an engine. Zero values bound nothing.
type Quota struct {
	Live  int     // transactions in memory
	Rate  float64 // starts per second
	Burst int     // starts at once; 0: a second's worth, and one at least
}

// The names of quotas, in errors.
const (
	quotaLive = "live"
	quotaRate = "starts_per_second"
)

// sweepUses is how many namespaces are counted, at least, before those are
// forgotten that use nothing.
const sweepUses = 1024

// quotas counts what namespaces take. Only starts are refused: what was started
// is owed its end, and counts all the same.
type quotas struct {
	of func(namespace string) Quota // nil: there are none, and nothing is counted

	mu      sync.Mutex // workers share them
	uses    map[string]*use
	sweepAt int
}

// use is what one namespace takes.
type use struct {
	live    int
	refused uint64
	left    float64 // starts that it has left, as of at
	at      time.Time
}

func newQuotas(of func(string) Quota) *quotas {
	return &quotas{of: of, uses: map[string]*use{}, sweepAt: sweepUses}
}

// take counts a start, or refuses it. A bulk is no tenant's, and may make room.
func (q *quotas) take(rec *store.Record, now time.Time) error {
	if q.of == nil || rec.Kind == KindBulk {
		return nil
	}
	quota := q.of(rec.Namespace)
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.use(rec.Namespace)
	if quota.Live > 0 && u.live >= quota.Live {
		u.refused++
		return over(rec.Namespace, quotaLive, strconv.Itoa(quota.Live), overloadFor)
	}
	if wait := u.start(quota, now); wait > 0 {
		u.refused++
		return over(rec.Namespace, quotaRate, strconv.FormatFloat(quota.Rate, 'g', -1, 64), wait)
	}
	u.live++
	return nil
}

// start takes one of the starts that are left, or tells when there will be one.
func (u *use) start(q Quota, now time.Time) time.Duration {
	if q.Rate <= 0 {
		return 0
	}
	u.fill(q, now)
	if u.left < 1 {
		return max(time.Millisecond, time.Duration((1-u.left)/q.Rate*float64(time.Second)))
	}
	u.left--
	return 0
}

// fill reports whether all starts are left that there can be.
func (u *use) fill(q Quota, now time.Time) bool {
	most := float64(q.Burst)
	if q.Burst == 0 {
		most = max(q.Rate, 1)
	}
	if u.at.IsZero() {
		u.left = most
	}
	u.left = min(most, u.left+max(0, now.Sub(u.at).Seconds())*q.Rate)
	u.at = now
	return u.left >= most
}

func over(namespace, quota, limit string, wait time.Duration) error {
	where := strconv.Quote(namespace)
	if namespace == "" {
		where = "default"
	}
	return amendsv1.ErrOverloaded.With("namespace %s is at its quota of %s %s; try again in %v", where, limit, quota, wait).
		WithMetadata("namespace", namespace).WithMetadata("quota", quota).WithMetadata("limit", limit).WithRetryAfter(wait)
}

// enter counts a transaction that was started before.
func (q *quotas) enter(rec *store.Record) {
	if q.of != nil && rec.Kind != KindBulk {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.use(rec.Namespace).live++
	}
}

// leave is for one that was counted.
func (q *quotas) leave(rec *store.Record) {
	if q.of != nil && rec.Kind != KindBulk {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.use(rec.Namespace).live--
	}
}

// use returns a namespace's. The lock is held.
func (q *quotas) use(namespace string) *use {
	u := q.uses[namespace]
	if u == nil {
		if len(q.uses) >= q.sweepAt {
			q.forget(time.Now())
		}
		u = &use{}
		q.uses[namespace] = u
	}
	return u
}

// forget drops those that use nothing: they begin as they are.
func (q *quotas) forget(now time.Time) {
	for namespace, u := range q.uses {
		if u.live == 0 && u.fill(q.of(namespace), now) {
			delete(q.uses, namespace)
		}
	}
	q.sweepAt = max(sweepUses, 2*len(q.uses))
}

// QuotaUse is what a namespace with a quota takes.
type QuotaUse struct {
	Quota
	Now     int    // transactions in memory
	Refused uint64 // starts
}

// all are those of namespaces that have a quota, and have used it.
func (q *quotas) all() map[string]QuotaUse {
	out := map[string]QuotaUse{}
	if q.of == nil {
		return out
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for namespace, u := range q.uses {
		if quota := q.of(namespace); quota != (Quota{}) {
			out[namespace] = QuotaUse{Quota: quota, Now: u.live, Refused: u.refused}
		}
	}
	return out
}
