package dispatch

import (
	"fmt"
	"slices"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// join makes a stream an instance of its service.
func (h *Hub) join(s *stream, hello *amendsv1.Hello) error {
	if s.capacity != 0 {
		return amendsv1.ErrInvalidArgument.With("a second hello: open another stream for another service")
	}
	if err := checkHello(hello, h.cfg.MaxCapacity); err != nil {
		h.log.Warn("participant turned away", "service", hello.GetService(), "instance", hello.GetInstance(), "error", err)
		return err
	}
	s.instance = hello.GetInstance()
	s.actions = make(map[string]struct{}, len(hello.GetActions()))
	for _, a := range hello.GetActions() {
		s.actions[a] = struct{}{}
	}
	if s.capacity = int(hello.GetCapacity()); s.capacity == 0 {
		s.capacity = min(defaultCapacity, h.cfg.MaxCapacity)
	}
	s.welcome = true
	poke(s.wake)
	if h.closed {
		return nil // Close has ended it already
	}
	s.service = h.service(serviceKey{s.namespace, hello.GetService()})
	s.service.streams = append(s.service.streams, s)
	h.log.Info("participant connected", "service", s.service.name, "namespace", s.namespace, "instance", s.instance,
		"actions", len(s.actions), "capacity", s.capacity)
	h.refill(s)
	return nil
}

// detach takes an ended stream out. What it had not sent goes to others, what
// it had sent ends as Unknown.
func (h *Hub) detach(s *stream) {
	h.mu.Lock()
	delete(h.streams, s)
	sv := s.service
	if sv == nil {
		h.mu.Unlock()
		return
	}
	sv.streams = slices.DeleteFunc(sv.streams, func(o *stream) bool { return o == s })
	s.takeBack()
	why := fmt.Sprintf("the connection to instance %q of %q was lost", s.instance, sv.name)
	var lost []Outcome
	for _, f := range s.deadlines { // the others have timed out: they are Unknown already
		lost = append(lost, unknown(f.call, why))
	}
	s.service, s.flights, s.deadlines, s.load = nil, nil, nil, 0
	h.forgetIfIdle(sv)
	closed := h.closed
	h.mu.Unlock()

	h.log.Info("participant disconnected", "service", sv.name, "instance", s.instance,
		"under_way", len(lost), "reason", s.err)
	if closed {
		return // whoever loads the transactions next asks again
	}
	for _, o := range lost {
		h.deliver(o)
	}
}

// takeBack gives what was assigned and not yet written to other instances, but
// for what has timed out: that has ended, and was maybe asked again.
func (s *stream) takeBack() {
	unsent := s.out
	s.out = nil
	now := time.Now()
	for _, f := range unsent {
		ended := f.index < 0
		s.remove(f)
		s.load--
		if !ended && !s.hub.closed {
			s.hub.place(f.call, now)
		}
	}
}

// assign puts a call onto the stream. One that is on it already is not sent
// twice, but waited for anew.
func (s *stream) assign(c Call, now time.Time) {
	f := s.flights[c.key()]
	if f == nil {
		f = &flight{call: c, index: -1}
		s.flights[c.key()] = f
		s.out = append(s.out, f)
		s.load++
		s.given++
		poke(s.wake)
	}
	s.deadlines.stop(f)
	s.deadlines.start(f, now)
	if f.expires.Before(s.planned) {
		poke(s.sooner)
	}
}

// remove forgets a call on the stream; its credit is the caller's to give back.
func (s *stream) remove(f *flight) {
	delete(s.flights, f.call.key())
	s.deadlines.stop(f)
}

func (s *stream) offers(action string) bool {
	_, ok := s.actions[action]
	return ok
}

// hasRoom reports whether the instance may be given another call.
func (s *stream) hasRoom() bool {
	return s.service != nil && !s.draining && s.load < s.capacity
}

// lessLoadedThan compares the used parts of the capacities.
func (s *stream) lessLoadedThan(o *stream) bool {
	a, b := s.load*o.capacity, o.load*s.capacity
	return a < b || a == b && s.given < o.given
}
