package dispatch

import (
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// A message of calls ends with the call that brings it to either of these.
const (
	batchCalls = 256
	batchBytes = 1 << 20
)

// stream is one instance's connection. Three goroutines run it: read takes
// outcomes, write sends calls, and supervise (the RPC itself) watches the
// timeouts and the heartbeat, so that neither a blocked write nor a blocked
// read keeps it from ending. The Hub's mutex guards the fields below hub.
type stream struct {
	grpc   amendsv1.ParticipantService_AttendServer
	ended  chan struct{} // closed by end
	err    error         // why; read it after ended
	once   sync.Once
	wake   chan struct{} // write has something to do
	sooner chan struct{} // supervise has to wake up earlier than it planned

	hub       *Hub
	namespace string
	service   *service // nil before the hello and after detach
	instance  string
	actions   map[string]struct{}
	capacity  int
	draining  bool
	load      int             // credits in use
	given     uint64          // calls so far
	flights   map[key]*flight // on the stream, unanswered
	deadlines deadlines       // of those that have not timed out
	out       []*flight       // assigned, to be written
	welcome   bool            // to be written
	pong      bool            // to be written
	heard     time.Time       // when the last message came
	busy      bool            // read is delivering: the silence is our own
	planned   time.Time       // when supervise wakes up
}

// Attend serves one participant's stream until it ends: with nil when the
// participant closed it, else with an error that says why. What was under way
// on it ends as Unknown at once. It receives the calls of transactions of its
// namespace only, with their gids as they are known there.
func (h *Hub) Attend(namespace string, g amendsv1.ParticipantService_AttendServer) error {
	s := &stream{
		grpc: g, hub: h, namespace: namespace, ended: make(chan struct{}),
		wake: make(chan struct{}, 1), sooner: make(chan struct{}, 1),
		flights: map[key]*flight{}, heard: time.Now(),
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return errClosed()
	}
	h.streams[s] = struct{}{}
	h.running.Add(1)
	defer h.running.Done()
	// Returning ends the RPC, and that unblocks these two.
	h.running.Go(s.read)
	h.running.Go(s.write)
	h.mu.Unlock()

	s.supervise()
	h.detach(s)
	return s.err
}

// end makes the stream end with err; only the first call counts.
func (s *stream) end(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.ended)
	})
}

// supervise returns when the stream has ended. It ends it itself when the
// participant is silent for too long.
func (s *stream) supervise() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		late, wait := s.check(time.Now())
		for _, f := range late {
			s.hub.deliver(timedOut(f.call))
		}
		timer.Reset(wait)
		select {
		case <-s.ended:
			return
		case <-s.grpc.Context().Done():
			s.end(s.grpc.Context().Err())
		case <-timer.C:
		case <-s.sooner:
		}
	}
}

// check returns the calls that have timed out and how long nothing else can
// happen. It ends the stream when the heartbeat is lost.
func (s *stream) check(now time.Time) (late []*flight, wait time.Duration) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.busy {
		s.heard = now
	}
	silence := lostAfter * h.cfg.Heartbeat
	if now.Sub(s.heard) >= silence {
		s.end(amendsv1.ErrUnavailable.With("no message for %v: ping every %v", silence, h.cfg.Heartbeat))
	}
	late = s.deadlines.expired(now)
	s.planned = s.heard.Add(silence)
	if next, ok := s.deadlines.next(); ok && next.Before(s.planned) {
		s.planned = next
	}
	return late, s.planned.Sub(now)
}

// read takes what the participant sends.
func (s *stream) read() {
	for {
		m, err := s.grpc.Recv()
		if errors.Is(err, io.EOF) { // it is done
			s.end(nil)
			return
		}
		if err == nil {
			err = s.take(m)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// take handles one message. It blocks while deliver does.
func (s *stream) take(m *amendsv1.AttendRequest) error {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.heard = time.Now()
	if hello, ok := m.GetMessage().(*amendsv1.AttendRequest_Hello); ok {
		return h.join(s, hello.Hello)
	}
	if s.capacity == 0 {
		return amendsv1.ErrInvalidArgument.With("the first message must be a hello, but it is %s", kind(m))
	}
	if s.service == nil { // the stream has ended meanwhile: what was under way is Unknown already
		return nil
	}
	switch m := m.GetMessage().(type) {
	case *amendsv1.AttendRequest_Outcomes:
		s.settle(m.Outcomes.GetOutcomes())
	case *amendsv1.AttendRequest_Ping:
		s.pong = true
		poke(s.wake)
	case *amendsv1.AttendRequest_Drain:
		s.draining = true
		s.takeBack()
	} // a message that is not set is a heartbeat, like any other
	return nil
}

// settle delivers answers and gives their credits back, in that order, so that
// an engine that cannot keep up gets no more of them. Answers to what is not
// under way on this stream (they were repeated, or belong to another) count for
// nothing. The Hub's mutex is released meanwhile.
func (s *stream) settle(answers []*amendsv1.Outcome) {
	h := s.hub
	done := make([]Outcome, 0, len(answers))
	for _, o := range answers {
		f := s.flights[outcomeKey(s.namespace, o)]
		if f == nil {
			h.log.Debug("answer to a call that is not under way", "service", s.service.name, "instance", s.instance,
				"gid", o.GetGid(), "index", o.GetIndex(), "op", o.GetOp(), "attempt", o.GetAttempt())
			continue
		}
		s.remove(f)
		h.meters.answered(f, time.Now())
		done = append(done, answer(f.call, o))
	}
	s.busy = true
	h.mu.Unlock()
	for _, o := range done {
		h.deliver(o)
	}
	h.mu.Lock()
	s.busy = false
	s.heard = time.Now()
	if s.service != nil {
		s.load -= len(done)
		h.refill(s)
	}
}

// write sends what was assigned, until the stream ends.
func (s *stream) write() {
	for {
		for m := s.next(); m != nil; m = s.next() {
			if err := s.grpc.Send(m); err != nil {
				s.end(err)
				return
			}
		}
		select {
		case <-s.wake:
		case <-s.ended:
			return
		}
	}
}

// next returns the next message to send, or nil when there is none now.
func (s *stream) next() *amendsv1.AttendResponse {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case s.welcome:
		s.welcome = false
		return &amendsv1.AttendResponse{Message: &amendsv1.AttendResponse_Welcome{Welcome: &amendsv1.Welcome{
			Coordinator: h.cfg.Name, Heartbeat: durationpb.New(h.cfg.Heartbeat),
		}}}
	case s.pong:
		s.pong = false
		return &amendsv1.AttendResponse{Message: &amendsv1.AttendResponse_Pong{Pong: &amendsv1.Pong{}}}
	case len(s.out) > 0:
		return &amendsv1.AttendResponse{Message: &amendsv1.AttendResponse_Calls{Calls: s.batch()}}
	}
	return nil
}

// batch takes as many assigned calls as go into one message, at least one.
func (s *stream) batch() *amendsv1.Calls {
	b := &amendsv1.Calls{}
	n, size := 0, 0
	for n < len(s.out) && n < batchCalls && size < batchBytes {
		c := s.out[n].call
		b.Calls = append(b.Calls, wireCall(c))
		size += bodySize(c)
		s.out[n] = nil
		n++
	}
	if s.out = s.out[n:]; len(s.out) == 0 {
		s.out = nil
	}
	return b
}

// poke wakes the goroutine that waits on c, now or when it next looks.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
