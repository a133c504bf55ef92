package dispatch

import (
	"cmp"
	"container/list"
	"maps"
	"slices"
	"time"
)

// serviceKey tells services apart.
type serviceKey struct{ namespace, name string }

// service is everything about one service. The Hub's mutex guards it.
type service struct {
	serviceKey
	streams []*stream
	queues  map[string]*queue // by action, none of them empty
}

// queue holds the calls of one action that wait: first those of transactions that
// have got on, then those of new ones, of each the oldest first. So what was begun
// comes to its end, however much is begun. While a call waits, no instance that
// offers the action has room.
type queue struct{ begun, fresh list.List }

func (q *queue) len() int { return q.begun.Len() + q.fresh.Len() }

// of returns the list that a call waits in.
func (q *queue) of(c Call) *list.List {
	if c.New {
		return &q.fresh
	}
	return &q.begun
}

// first returns the call whose turn is next; there is one.
func (q *queue) first() *waiting {
	e := q.begun.Front()
	if e == nil {
		e = q.fresh.Front()
	}
	return e.Value.(*waiting)
}

// before tells whose turn is first among calls of several actions.
func (w *waiting) before(o *waiting) bool {
	if w.call.New != o.call.New {
		return o.call.New
	}
	return w.seq < o.seq
}

// waiting is a call that no instance could take yet.
type waiting struct {
	call    Call
	seq     uint64
	service *service
	place   *list.Element // in its queue
}

func (h *Hub) enqueue(sv *service, c Call) {
	q := sv.queues[c.Action]
	if q == nil {
		q = &queue{}
		sv.queues[c.Action] = q
	}
	h.seq++
	w := &waiting{call: c, seq: h.seq, service: sv}
	w.place = q.of(c).PushBack(w)
	h.byGID[c.GID] = append(h.byGID[c.GID], w)
}

func (h *Hub) dequeue(w *waiting) {
	action, gid := w.call.Action, w.call.GID
	q := w.service.queues[action]
	if q.of(w.call).Remove(w.place); q.len() == 0 {
		delete(w.service.queues, action)
	}
	rest := slices.DeleteFunc(h.byGID[gid], func(o *waiting) bool { return o == w })
	if h.byGID[gid] = rest; len(rest) == 0 {
		delete(h.byGID, gid)
	}
}

// replaceWaiting puts c into the place of an earlier call for the same thing.
func (h *Hub) replaceWaiting(c Call) bool {
	for _, w := range h.byGID[c.GID] {
		if w.call.Branch == c.Branch && w.call.Op == c.Op && w.call.Action == c.Action {
			c.New = w.call.New // its place is in that list
			w.call = c
			return true
		}
	}
	return false
}

// refill gives a stream what waits for it, in its order, while it has room.
func (h *Hub) refill(s *stream) {
	now := time.Now()
	for s.hasRoom() {
		w := s.service.next(s)
		if w == nil {
			return
		}
		h.dequeue(w)
		s.assign(w.call, now)
	}
}

// next returns the call whose turn it is among those that s offers, or nil.
func (sv *service) next(s *stream) *waiting {
	var first *waiting
	for action, q := range sv.queues {
		if !s.offers(action) {
			continue
		}
		if w := q.first(); first == nil || w.before(first) {
			first = w
		}
	}
	return first
}

// leastLoaded returns the instance that uses the smallest part of its capacity
// and has room; among equals the one that was given the fewest calls so far.
func (sv *service) leastLoaded(action string) *stream {
	var best *stream
	for _, s := range sv.streams {
		if s.hasRoom() && s.offers(action) && (best == nil || s.lessLoadedThan(best)) {
			best = s
		}
	}
	return best
}

func (sv *service) status() Service {
	st := Service{Name: sv.name}
	actions := map[string]struct{}{}
	for _, s := range sv.streams {
		maps.Copy(actions, s.actions)
		st.InFlight += s.load
		st.Instances = append(st.Instances, Instance{
			Name: s.instance, Capacity: s.capacity, InFlight: s.load, Draining: s.draining,
		})
	}
	slices.SortStableFunc(st.Instances, func(a, b Instance) int { return cmp.Compare(a.Name, b.Name) })
	st.Actions = slices.Sorted(maps.Keys(actions))
	for _, q := range sv.queues {
		st.Waiting += q.len()
	}
	return st
}
