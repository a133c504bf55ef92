package auth

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// recheckEvery is how long a stream goes on at most once its credentials are
// withdrawn or have expired, if anything is sent on it.
const recheckEvery = time.Minute

// stream is an open one whose caller is known.
type stream struct {
	grpc.ServerStream
	guard  *Guard
	method string
	ctx    context.Context // with the Caller
	said   *sealed         // of one that a member forwards; nil: it came from its caller

	mu      sync.Mutex
	service string // that it answers for, after its hello
	checked time.Time
	opened  bool // its first message was what the member said
}

// Context carries the Caller.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg refuses a participant's hello for a service that its credentials do
// not name.
func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if s.said != nil {
		return s.forwarded(m)
	}
	if attend, ok := m.(*amendsv1.AttendRequest); ok && attend.GetHello() != nil {
		if err := s.hello(attend.GetHello().GetService()); err != nil {
			s.guard.refused(s.ctx, s.method, err)
			return err
		}
	}
	return s.recheck()
}

// forwarded sees that the one message of a stream that a member forwards is the
// one that it vouches for. That member rechecks its caller.
func (s *stream) forwarded(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened {
		return amendsv1.ErrUnauthenticated.With("a forwarded stream has one request")
	}
	if err := s.guard.ofRequest(s.ctx, s.method, s.said, m); err != nil {
		s.guard.refused(s.ctx, s.method, err)
		return err
	}
	s.opened = true
	return nil
}

// SendMsg sends nothing to whom it should no longer go.
func (s *stream) SendMsg(m any) error {
	if err := s.recheck(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func (s *stream) hello(service string) error {
	s.mu.Lock()
	s.service = service
	s.mu.Unlock()
	return MayAnswerFor(s.ctx, service)
}

// recheck asks, from time to time, whether the caller would be let in now. That
// it cannot be told just now ends no stream.
func (s *stream) recheck() error {
	if s.said != nil || s.guard.everybody != nil || rules[s.method].public {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.checked) < recheckEvery {
		return nil
	}
	s.checked = time.Now()
	err := s.still()
	if errors.Is(err, amendsv1.ErrUnauthenticated) || errors.Is(err, amendsv1.ErrPermission) {
		s.checked = time.Time{} // and so is whatever comes next
		s.guard.refused(s.ctx, s.method, err)
		return err
	}
	return nil
}

func (s *stream) still() error {
	id, err := s.guard.identify(s.ctx)
	if err != nil {
		return err
	}
	now, err := s.guard.authorise(s.ctx, id, s.method, nil)
	if err != nil {
		return err
	}
	if before, _ := FromContext(s.ctx); now.Subject != before.Subject || now.Namespace != before.Namespace {
		return amendsv1.ErrUnauthenticated.With("the credentials are %s's now: call again", now.Subject)
	}
	if s.service == "" {
		return nil
	}
	return now.mayAnswerFor(s.service)
}
