package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// grace is how much longer than a call's timeout its answer may take.
const grace = 10 * time.Second

// rigConn is the coordinator's side of one participant's stream, without gRPC:
// one call at a time.
type rigConn struct {
	attended chan struct{} // closed by the hello
	actions  []string      // read it after attended
	toSDK    chan *amendsv1.AttendResponse
	outcomes chan *amendsv1.Outcome
	lost     chan struct{} // closed when the participant is gone
	why      error         // read it after lost
	hello    sync.Once
}

func newRigConn() *rigConn {
	return &rigConn{
		attended: make(chan struct{}), lost: make(chan struct{}),
		toSDK: make(chan *amendsv1.AttendResponse, 2), outcomes: make(chan *amendsv1.Outcome, 1),
	}
}

func (c *rigConn) lose(why error) {
	c.why = why
	close(c.lost)
}

// perform makes one call and returns its answer.
func (r *Rig) perform(call txn.Call) (txn.Replied, error) {
	out := txn.Replied{Branch: call.Branch, Op: call.Op, Attempt: call.Attempt}
	c := r.conns[call.Action]
	if c == nil {
		return out, fmt.Errorf("step %q: no participant of the rig offers %q", call.Name, call.Action)
	}
	wait := call.Retry.WithDefaults().CallTimeout + grace
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	c.toSDK <- &amendsv1.AttendResponse{Message: &amendsv1.AttendResponse_Calls{
		Calls: &amendsv1.Calls{Calls: []*amendsv1.Call{rigCall(call)}}}}
	select {
	case o := <-c.outcomes:
		out.Outcome, out.Reply, out.Message = txn.Outcome(o.GetCode()), o.GetReply(), o.GetMessage()
		return out, nil
	case <-timeout.C:
		return out, fmt.Errorf("step %q: %s was not answered in %v: does the handler ignore its context?", call.Name, call.Op, wait)
	case <-c.lost:
		return out, fmt.Errorf("step %q: the participant is gone: %w", call.Name, c.why)
	}
}

func rigCall(c txn.Call) *amendsv1.Call {
	w := &amendsv1.Call{
		Gid: "enumerated", Branch: c.Name, Index: int32(c.Branch), Op: amendsv1.Op(c.Op), Action: c.Action,
		Attempt: int32(c.Attempt), Payload: c.Payload, Timeout: durationpb.New(c.Retry.WithDefaults().CallTimeout),
	}
	for _, r := range c.Replies {
		w.Replies = append(w.Replies, &amendsv1.StepReply{Branch: r.Branch, Action: r.Action, Body: r.Body})
	}
	return w
}

// Invoke implements grpc.ClientConnInterface.
func (c *rigConn) Invoke(_ context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	return fmt.Errorf("sdktest: a rig has no coordinator to answer %s", method)
}

// NewStream implements grpc.ClientConnInterface.
func (c *rigConn) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	if method != amendsv1.ParticipantService_Attend_FullMethodName {
		return nil, fmt.Errorf("sdktest: a rig has no coordinator to answer %s", method)
	}
	return &rigStream{ctx: ctx, conn: c, closed: make(chan struct{})}, nil
}

// rigStream implements grpc.ClientStream.
type rigStream struct {
	ctx    context.Context
	conn   *rigConn
	closed chan struct{} // by the participant
	once   sync.Once
}

func (s *rigStream) Header() (metadata.MD, error) { return nil, nil }
func (s *rigStream) Trailer() metadata.MD         { return nil }
func (s *rigStream) Context() context.Context     { return s.ctx }

func (s *rigStream) CloseSend() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *rigStream) SendMsg(m any) error {
	req, ok := m.(*amendsv1.AttendRequest)
	if !ok {
		return fmt.Errorf("sdktest: a rig got a %T", m)
	}
	switch m := req.GetMessage().(type) {
	case *amendsv1.AttendRequest_Hello:
		s.conn.toSDK <- &amendsv1.AttendResponse{Message: &amendsv1.AttendResponse_Welcome{
			Welcome: &amendsv1.Welcome{Coordinator: "sdktest", Heartbeat: durationpb.New(time.Hour)}}}
		s.conn.hello.Do(func() { // after the welcome, which goes ahead of every call
			s.conn.actions = m.Hello.GetActions()
			close(s.conn.attended)
		})
	case *amendsv1.AttendRequest_Outcomes:
		for _, o := range m.Outcomes.GetOutcomes() {
			select {
			case s.conn.outcomes <- o:
			case <-s.ctx.Done():
				return s.ctx.Err()
			}
		}
	}
	return nil
}

func (s *rigStream) RecvMsg(m any) error {
	resp, ok := m.(*amendsv1.AttendResponse)
	if !ok {
		return errors.New("sdktest: a rig sends nothing but AttendResponse")
	}
	select {
	case r := <-s.conn.toSDK:
		proto.Reset(resp)
		proto.Merge(resp, r)
		return nil
	case <-s.closed:
		return io.EOF
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
