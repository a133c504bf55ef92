package sdktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// Faults says how often messages between the coordinator and participants go
// wrong. Each is a probability for each call, independent of the others.
//
// A loss shows when the call times out (10 s by default), so tests with losses
// belong into a synctest bubble, where that takes no time.
type Faults struct {
	LoseRequests float64 // a call never arrives; 0 to below 1
	LoseReplies  float64 // a call is performed and its answer never arrives; 0 to below 1
	Repeat       float64 // a call arrives again later, an answer twice; 0 to 1
	Seed         int64   // another one makes other choices
}

func (f Faults) validate() error {
	var errs []error
	bad := func(cond bool, field string, p float64, want string) {
		if cond {
			errs = append(errs, fmt.Errorf("sdktest: Faults.%s is %v, want %s", field, p, want))
		}
	}
	bad(!(f.LoseRequests >= 0 && f.LoseRequests < 1), "LoseRequests", f.LoseRequests, "0 to below 1: else nothing ever ends")
	bad(!(f.LoseReplies >= 0 && f.LoseReplies < 1), "LoseReplies", f.LoseReplies, "0 to below 1: else nothing ever ends")
	bad(!(f.Repeat >= 0 && f.Repeat <= 1), "Repeat", f.Repeat, "0 to 1")
	return errors.Join(errs...)
}

// faultyConn puts faults on the participants' streams that go through it.
type faultyConn struct {
	grpc.ClientConnInterface
	faults Faults
	number int64

	mu    sync.Mutex
	opens int64
}

// NewStream implements grpc.ClientConnInterface.
func (c *faultyConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	f := c.faults
	if err != nil || method != amendsv1.ParticipantService_Attend_FullMethodName || f == (Faults{Seed: f.Seed}) {
		return s, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opens++
	random := rand.New(rand.NewPCG(uint64(f.Seed), uint64(c.number<<32+c.opens)))
	return &faultyStream{ClientStream: s, faults: f, random: random, timeouts: map[callKey]time.Duration{}}, nil
}

// callKey tells calls apart, like the coordinator does.
type callKey struct {
	gid     string
	index   int32
	op      amendsv1.Op
	attempt int32
}

// faultyStream loses and repeats calls and outcomes. A stream of gRPC loses no
// message, so the coordinator keeps the credit of a lost call until it hears of
// it: after the call's timeout, when the answer means nothing any more, the
// stream says so.
type faultyStream struct {
	grpc.ClientStream

	mu       sync.Mutex
	faults   Faults
	random   *rand.Rand
	timeouts map[callKey]time.Duration // of calls that were delivered
	again    []*amendsv1.Call          // to be delivered a second time
	lost     []lostCall                // credits to give back
}

type lostCall struct {
	outcome *amendsv1.Outcome
	due     time.Time
}

func (s *faultyStream) happens(p float64) bool { return p > 0 && s.random.Float64() < p }

// RecvMsg implements grpc.ClientStream.
func (s *faultyStream) RecvMsg(m any) error {
	for {
		if err := s.ClientStream.RecvMsg(m); err != nil {
			return err
		}
		resp, ok := m.(*amendsv1.AttendResponse)
		if !ok || resp.GetCalls() == nil {
			return nil
		}
		if resp.GetCalls().Calls = s.deliver(resp.GetCalls().GetCalls()); len(resp.GetCalls().GetCalls()) > 0 {
			return nil
		}
	}
}

// deliver returns what arrives of some calls, and earlier ones that do again.
func (s *faultyStream) deliver(calls []*amendsv1.Call) []*amendsv1.Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var arrive, later []*amendsv1.Call
	for _, c := range s.again {
		if s.happens(0.5) {
			arrive = append(arrive, c)
		} else {
			later = append(later, c)
		}
	}
	s.again = later
	for _, c := range calls {
		k := callKey{c.GetGid(), c.GetIndex(), c.GetOp(), c.GetAttempt()}
		s.timeouts[k] = c.GetTimeout().AsDuration()
		if s.happens(s.faults.Repeat) {
			s.again = append(s.again, proto.CloneOf(c))
		}
		if s.happens(s.faults.LoseRequests) {
			s.lose(k)
			continue
		}
		arrive = append(arrive, c)
	}
	return arrive
}

func (s *faultyStream) lose(k callKey) {
	timeout, ok := s.timeouts[k]
	if !ok {
		return // an answer to a call that was answered before
	}
	delete(s.timeouts, k)
	s.lost = append(s.lost, lostCall{due: time.Now().Add(timeout), outcome: &amendsv1.Outcome{
		Gid: k.gid, Index: k.index, Op: k.op, Attempt: k.attempt,
		Code: amendsv1.OutcomeCode(txn.Unknown), Message: "lost by sdktest",
	}})
}

// SendMsg implements grpc.ClientStream.
func (s *faultyStream) SendMsg(m any) error {
	req, ok := m.(*amendsv1.AttendRequest)
	if !ok {
		return s.ClientStream.SendMsg(m)
	}
	if credits := s.credits(time.Now()); len(credits) > 0 {
		if err := s.ClientStream.SendMsg(outcomes(credits)); err != nil {
			return err
		}
	}
	if req.GetOutcomes() == nil {
		return s.ClientStream.SendMsg(m)
	}
	arrive := s.answer(req.GetOutcomes().GetOutcomes())
	if len(arrive) == 0 {
		return nil
	}
	return s.ClientStream.SendMsg(outcomes(arrive))
}

func outcomes(o []*amendsv1.Outcome) *amendsv1.AttendRequest {
	return &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: &amendsv1.Outcomes{Outcomes: o}}}
}

// credits returns the lost calls that have timed out.
func (s *faultyStream) credits(now time.Time) []*amendsv1.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*amendsv1.Outcome
	s.lost = slices.DeleteFunc(s.lost, func(l lostCall) bool {
		if l.due.Before(now) {
			out = append(out, l.outcome)
			return true
		}
		return false
	})
	return out
}

// answer returns what arrives of some outcomes.
func (s *faultyStream) answer(all []*amendsv1.Outcome) []*amendsv1.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	var arrive []*amendsv1.Outcome
	for _, o := range all {
		k := callKey{o.GetGid(), o.GetIndex(), o.GetOp(), o.GetAttempt()}
		if s.happens(s.faults.LoseReplies) {
			s.lose(k)
			continue
		}
		delete(s.timeouts, k)
		arrive = append(arrive, o)
		if s.happens(s.faults.Repeat) {
			arrive = append(arrive, proto.CloneOf(o))
		}
	}
	return arrive
}
