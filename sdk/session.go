package sdk

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// A message of outcomes ends with the one that brings it to either of these.
const (
	batchOutcomes = 256
	batchBytes    = 1 << 20
)

// session is one stream to one coordinator. Three goroutines run it: read takes
// calls, write is the only one that sends, listen notices silence.
type session struct {
	p           *Participant
	handling    context.Context // of handlers: outlives the stream
	life        context.Context // of the stream
	end         context.CancelCauseFunc
	stream      grpc.BidiStreamingClient[amendsv1.AttendRequest, amendsv1.AttendResponse]
	coordinator string
	heartbeat   time.Duration
	heard       atomic.Pointer[time.Time] // when the last message came
	outcomes    chan *amendsv1.Outcome

	mu     sync.Mutex
	taken  int  // calls accepted whose outcome has not been sent
	closed bool // no more calls are accepted
}

// why prefers our own reason for ending the stream to the error that this
// caused.
func (s *session) why(err error) error {
	cause := context.Cause(s.life)
	for _, ours := range []error{errNoWelcome, errSilent, errFarewell} {
		if errors.Is(cause, ours) {
			return ours
		}
	}
	return err
}

// read takes calls until the stream ends. No more than the capacity are under
// way: a coordinator that sends more waits.
func (s *session) read() error {
	credits := make(chan struct{}, s.p.cfg.Concurrency)
	for {
		m, err := s.stream.Recv()
		if err != nil {
			return s.ended(err)
		}
		s.hear()
		for _, m := range m.GetCalls().GetCalls() {
			select {
			case credits <- struct{}{}:
			case <-s.life.Done():
				return s.life.Err()
			}
			if !s.take() {
				<-credits // it runs elsewhere: the coordinator hears nothing of it
				continue
			}
			c := s.p.newCall(m)
			s.p.calls.Go(func() {
				defer func() { <-credits }()
				s.perform(c)
			})
		}
	}
}

func (s *session) hear() {
	now := time.Now()
	s.heard.Store(&now)
}

// errOver ends the other goroutines of a stream that was drained.
var errOver = errors.New("the stream is over")

// ended says what the end of the stream means: after we closed it, that it is
// over.
func (s *session) ended(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errOver
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the coordinator ended the stream")
	}
	return err
}

// perform answers one call. A handler that ends its goroutine (a test's
// FailNow) is answered for as well.
func (s *session) perform(c *call) {
	out := &amendsv1.Outcome{
		Gid: c.info.GID, Index: c.index, Op: amendsv1.Op(c.info.Op), Attempt: int32(c.info.Attempt), //nolint:gosec // came as int32
		Code: wireOutcome(txn.Unknown), Message: "the handler ended its goroutine",
	}
	defer func() {
		select {
		case s.outcomes <- out:
		case <-s.life.Done():
			// The stream is lost, and with it the answer: the call is unknown to
			// the coordinator, asked again, and answered from the guard.
		}
	}()
	out = s.p.answer(s.handling, c)
}

// take accepts a call unless the stream is closed.
func (s *session) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.taken++
	return true
}

// gave notes that n outcomes were sent.
func (s *session) gave(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken -= n
}

// closeIdle accepts no more calls, if none is under way.
func (s *session) closeIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == 0 {
		s.closed = true
	}
	return s.closed
}

// write sends outcomes and pings, and after the end of ctx the drain, the
// outcomes of what still runs, and the end of the stream.
func (s *session) write(ctx context.Context) error {
	tick := time.NewTicker(s.heartbeat)
	defer tick.Stop()
	ended := ctx.Done()
	draining := false
	for {
		select {
		case out := <-s.outcomes:
			if err := s.sendOutcomes(out); err != nil {
				return err
			}
		case <-tick.C:
			ping := &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Ping{Ping: &amendsv1.Ping{}}}
			if err := s.send(ping); err != nil {
				return err
			}
		case <-ended:
			ended, draining = nil, true
			drain := &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Drain{Drain: &amendsv1.Drain{}}}
			if err := s.send(drain); err != nil {
				return err
			}
			stop := time.AfterFunc(s.p.cfg.DrainTimeout, func() { s.end(errFarewell) })
			defer stop.Stop()
		case <-s.life.Done():
			return s.life.Err()
		}
		if draining && s.closeIdle() {
			return s.farewell()
		}
	}
}

// farewell ends our side of the stream; read notices when the coordinator ends
// its own.
func (s *session) farewell() error {
	if err := s.stream.CloseSend(); err != nil {
		return err
	}
	stop := time.AfterFunc(farewellTimeout, func() { s.end(errFarewell) })
	defer stop.Stop()
	<-s.life.Done()
	return s.life.Err()
}

// sendOutcomes sends out and whatever else is ready, within the limits of a
// message.
func (s *session) sendOutcomes(out *amendsv1.Outcome) error {
	batch := []*amendsv1.Outcome{out}
	for size := proto.Size(out); len(batch) < batchOutcomes && size < batchBytes; {
		select {
		case out = <-s.outcomes:
			batch = append(batch, out)
			size += proto.Size(out)
			continue
		default:
		}
		break
	}
	m := &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: &amendsv1.Outcomes{Outcomes: batch}}}
	if err := s.send(m); err != nil {
		return err
	}
	s.gave(len(batch))
	return nil
}

// send sends a message. An end of the stream is no error here: read gets the
// coordinator's own reason for it.
func (s *session) send(m *amendsv1.AttendRequest) error {
	err := s.stream.Send(m)
	if errors.Is(err, io.EOF) {
		<-s.life.Done()
		return s.life.Err()
	}
	return err
}

// listen ends the stream when nothing was heard for three heartbeats, not even
// the answer to a ping: the connection may be dead without knowing it.
func (s *session) listen() error {
	tick := time.NewTicker(s.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if time.Since(*s.heard.Load()) > 3*s.heartbeat {
				s.end(errSilent)
				return errSilent
			}
		case <-s.life.Done():
			return s.life.Err()
		}
	}
}
