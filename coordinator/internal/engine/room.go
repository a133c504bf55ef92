package engine

import (
	"slices"
	"sync"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// room bounds transactions in memory. Those that wait for one service take at
// most as much of it as is left free: a service that is away fills a half, two
// of them a third each, and there is always room for those that are well.
type room struct {
	limit int

	mu      sync.Mutex // workers share a room
	used    int
	waiting map[string]int // transactions that wait for a service, by its name
}

func newRoom(limit int) *room { return &room{limit: limit, waiting: map[string]int{}} }

// enter takes a transaction in, whether there is room for it or not.
func (r *room) enter(services []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used++
	r.add(services, 1)
}

// leave lets a transaction out that waited for services.
func (r *room) leave(services []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used--
	r.add(services, -1)
}

// move notes that a transaction waits for others than before.
func (r *room) move(from, to []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(from, -1)
	r.add(to, 1)
}

func (r *room) add(services []string, n int) {
	for _, s := range services {
		if r.waiting[s] += n; r.waiting[s] == 0 {
			delete(r.waiting, s)
		}
	}
}

func (r *room) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

func (r *room) full() bool { return r.count() >= r.limit }

// calm reports whether nobody can have more than a share, since most of the room
// is left.
func (r *room) calm() bool { return 2*r.count() < r.limit }

// share is how many transactions may wait for one service: what is left free,
// but never less than a sixteenth. The lock is held.
func (r *room) share() int { return max(r.limit-r.used, r.limit/16, 1) }

// crowded returns the first of the services that has its share or more, and
// how many transactions wait for it.
func (r *room) crowded(services []string) (service string, waiting int, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range services {
		if n := r.waiting[s]; n >= r.share() {
			return s, n, true
		}
	}
	return "", 0, false
}

// roomy reports whether a service uses no more than half of its share.
func (r *room) roomy(service string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return 2*r.waiting[service] <= r.share()
}

// appendService adds a service to those of a transaction, each once.
func appendService(services []string, action string) []string {
	service, _ := txn.SplitAction(action)
	if slices.Contains(services, service) {
		return services
	}
	return append(services, service)
}

// inNamespace names services as rooms count them: those of a namespace are its
// own, and take no room from those of the same name in another.
func inNamespace(namespace string, services []string) []string {
	for i := range services {
		services[i] = wire.Key(namespace, services[i])
	}
	return services
}

// recount tells the room for which services a transaction waits now.
func (t *tx) recount() {
	var now []string
	for i := range t.calls {
		now = appendService(now, t.calls[i].Action)
	}
	now = inNamespace(t.rec.Namespace, now)
	if len(now) == len(t.waits) && (len(now) == 0 || len(now) == 1 && now[0] == t.waits[0]) {
		return
	}
	t.room.move(t.waits, now)
	t.waits = now
}

// admits refuses a start for which there is no room, or one of whose services
// has more transactions waiting than its share: it would only join them.
// A bulk takes no room, and may make some.
func (w *worker) admits(rec store.Record, m machine) error {
	if rec.Kind == KindBulk {
		return nil
	}
	if r := w.e.started; r.full() {
		w.e.meters.refused.Add(refusedFull)
		return amendsv1.ErrOverloaded.With("%d transactions are under way, which is the limit; try again in %v",
			r.limit, overloadFor).WithRetryAfter(overloadFor)
	}
	return w.e.notCrowded(w.e.started, inNamespace(rec.Namespace, m.services()))
}

// admitsTry is admits for a branch that a TCC transaction does not have yet.
func (w *worker) admitsTry(t *tx, b tcc.Branch) error {
	m, ok := t.m.(*tccMachine)
	if !ok || m.phase() != txn.Running {
		return nil // which is for the machine to refuse
	}
	for i := range m.s.Branches {
		if m.s.Branches[i].Name == b.Name {
			return nil
		}
	}
	return w.e.notCrowded(t.room, inNamespace(t.rec.Namespace, appendService(nil, b.Action)))
}

func (e *Engine) notCrowded(r *room, services []string) error {
	service, n, crowded := r.crowded(services)
	if !crowded {
		return nil
	}
	_, service = wire.Split(service)
	e.meters.refused.Add(refusedCrowded)
	return amendsv1.ErrOverloaded.With("%d transactions wait for service %q already, which is its share of the %d that "+
		"may be under way; try again in %v", n, service, r.limit, overloadFor).
		WithMetadata("service", service).WithRetryAfter(overloadFor)
}

// setsAside leaves a transaction to the store that was taken over from it and
// would wait for a service with more than its share, and reports whether it
// did. What is under way, or asked for by a caller, stays.
func (w *worker) setsAside(t *tx) bool {
	if t.room != w.e.owed || len(t.tries) > 0 || len(t.commit) > 0 {
		return false
	}
	if t.calling() {
		return false
	}
	service, n, crowded := t.room.crowded(t.waits)
	if !crowded || n == 1 { // which is this one
		return false
	}
	w.aside[service] = true
	w.leave(t)
	return true
}

// resumes reports whether a service has room again for which transactions were
// set aside. Each time, its share of them is taken in, and not the whole herd.
func (w *worker) resumes() bool {
	for s := range w.aside {
		if w.e.owed.roomy(s) {
			clear(w.aside)
			return true
		}
	}
	return false
}
