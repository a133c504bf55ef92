package dispatch

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// Hub hands calls to the least loaded instance of the service that offers
// them. All methods are safe for concurrent use.
//
// Its one mutex is never held while something is sent, received or delivered,
// so a participant that hangs holds up nobody else.
type Hub struct {
	cfg     Config
	log     *slog.Logger
	deliver func(Outcome)
	meters  *meters

	mu       sync.Mutex
	closed   bool
	services map[serviceKey]*service
	streams  map[*stream]struct{} // every open one, those without a hello included
	byGID    map[string][]*waiting
	seq      uint64 // orders what waits

	running sync.WaitGroup // Attend and the goroutines of its stream
}

// New returns a Hub that hands every outcome to deliver, from many goroutines.
// While deliver blocks, the stream that the outcome came from is not read any
// further: that is the back-pressure. cfg may be nil; one that Validate rejects
// counts with defaults for what is wrong.
func New(deliver func(Outcome), cfg *Config) *Hub {
	c, m := cfg.withDefaults(), newMeters()
	return &Hub{
		cfg:      c,
		log:      c.Logger,
		deliver:  m.counting(deliver),
		meters:   m,
		services: map[serviceKey]*service{},
		streams:  map[*stream]struct{}{},
		byGID:    map[string][]*waiting{},
	}
}

// Send hands out calls. It never blocks and never drops: a call waits until an
// instance that offers its action has capacity, in the order of arrival, but those
// of new transactions after all others. A call of the same transaction, branch and
// operation that still waits is replaced.
//
// Its call timeout starts when it goes onto a stream; then, or when the stream
// is lost, it ends as Unknown. An answer after the timeout is still delivered.
func (h *Hub) Send(calls ...Call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	now := time.Now()
	for _, c := range calls {
		h.meters.sent(c)
		h.place(c, now)
	}
}

// place gives a call to the least loaded instance, or lets it wait.
func (h *Hub) place(c Call, now time.Time) {
	if h.replaceWaiting(c) {
		return
	}
	namespace, _ := wire.Split(c.GID)
	name, _ := txn.SplitAction(c.Action)
	sv := h.service(serviceKey{namespace, name})
	if sv.queues[c.Action] == nil { // else no instance has room for this action
		if s := sv.leastLoaded(c.Action); s != nil {
			s.assign(c, now)
			return
		}
	}
	h.enqueue(sv, c)
}

// Withdraw forgets the calls of a transaction that still wait, and returns
// them. Those that are on a stream already are not called back.
func (h *Hub) Withdraw(gid string) []Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	var calls []Call
	for _, w := range slices.Clone(h.byGID[gid]) {
		calls = append(calls, w.call)
		h.dequeue(w)
		h.forgetIfIdle(w.service)
	}
	return calls
}

// Offers reports whether an instance of the action's service is connected in a
// namespace, and whether one of those offers the action.
func (h *Hub) Offers(namespace, action string) (serviceKnown, actionKnown bool) {
	name, _ := txn.SplitAction(action)
	h.mu.Lock()
	defer h.mu.Unlock()
	sv := h.services[serviceKey{namespace, name}]
	if sv == nil || len(sv.streams) == 0 {
		return false, false
	}
	return true, slices.ContainsFunc(sv.streams, func(s *stream) bool { return s.offers(action) })
}

// Services returns every service of a namespace that has an instance or a
// waiting call, by name.
func (h *Hub) Services(namespace string) []Service {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []Service
	for key, sv := range h.services {
		if key.namespace == namespace {
			all = append(all, sv.status())
		}
	}
	slices.SortFunc(all, func(a, b Service) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Close ends every stream with amendsv1.ErrUnavailable, refuses new ones and
// forgets what waits or is under way. When it returns, no goroutine of the Hub
// is left and nothing will be delivered any more; so it waits for the deliver
// calls that are under way.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	clear(h.byGID)
	for s := range h.streams {
		s.end(errClosed())
	}
	for _, sv := range h.services {
		clear(sv.queues)
		h.forgetIfIdle(sv)
	}
	h.mu.Unlock()
	h.running.Wait()
}

func errClosed() error { return amendsv1.ErrUnavailable.With("the coordinator is shutting down") }

// service returns the named service, a new one if need be.
func (h *Hub) service(key serviceKey) *service {
	sv := h.services[key]
	if sv == nil {
		sv = &service{serviceKey: key, queues: map[string]*queue{}}
		h.services[key] = sv
	}
	return sv
}

// forgetIfIdle drops a service that has neither instance nor waiting call.
func (h *Hub) forgetIfIdle(sv *service) {
	if len(sv.streams) == 0 && len(sv.queues) == 0 {
		delete(h.services, sv.serviceKey)
	}
}
