package simulation

import (
	"context"
	"hash/fnv"
	"path"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

var errBroken = status.Error(codes.Unavailable, "simulation: the connection broke")

// wire is a process's way to coordinators. Requests and answers take their
// time, are lost and repeated; a coordinator may die as it receives or sends.
type wire struct {
	w    *world
	from *process
	to   string // a coordinator; empty: another one each time
}

// target is the coordinator that a request goes to: mostly the one that has the
// transaction's shard, as if the request had been passed on to it.
func (c *wire) target(gid string, words ...any) *member {
	w, name := c.w, c.to
	if name == "" && gid != "" && w.happens(0.7, append(words, "target")...) {
		name = w.ownerOf(gid)
	}
	if name == "" {
		name = w.memberName(w.pick(members, append(words, "any")...))
	}
	return w.member(name)
}

// ownerOf is the coordinator that has a transaction's shard; empty: none.
func (w *world) ownerOf(gid string) string {
	all, err := w.store.Leases(context.Background())
	if err != nil {
		w.violation("the store cannot be read: %v", err)
		return ""
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(gid)) // never fails
	name, _, _ := strings.Cut(all[h.Sum64()%shards].Owner, ".")
	return name
}

// Invoke implements grpc.ClientConnInterface.
func (c *wire) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	w, verb, gid := c.w, path.Base(method), ""
	if r, ok := args.(interface{ GetGid() string }); ok {
		gid = r.GetGid()
	}
	id := []any{"request", c.from.id, verb, gid, w.nth("request", c.from.id, verb, gid)}
	at := func(p float64, what string) bool { return w.rough(p, append(id, what)...) }
	if err := c.travel(ctx, append(id, "out")...); err != nil {
		return err
	}
	m := c.target(gid, id...)
	if m == nil || m.pass() != nil {
		return errBroken
	}
	switch {
	case at(0.02, "request lost"):
		w.fault("request lost", c.from.id, "%s %s to %s", verb, gid, m.id)
		return errBroken
	case at(0.003, "crash at receive"):
		m.kill("as it receives %s %s", verb, gid)
		return errBroken
	}
	inner, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(m.ctx, cancel)()
	defer cancel()
	err := m.c.Conn().Invoke(inner, method, args, reply, opts...)
	if at(0.02, "request repeated") && m.pass() == nil {
		w.fault("request repeated", c.from.id, "%s %s to %s", verb, gid, m.id)
		err = m.c.Conn().Invoke(inner, method, args, reply, opts...)
	}
	if at(0.003, "crash at send") {
		m.kill("before it answers %s %s", verb, gid)
	}
	if m.pass() != nil || m.ctx.Err() != nil && ctx.Err() == nil {
		return errBroken
	}
	if at(0.02, "answer lost") {
		w.fault("answer lost", c.from.id, "%s %s from %s", verb, gid, m.id)
		return errBroken
	}
	if terr := c.travel(ctx, append(id, "back")...); terr != nil {
		return terr
	}
	return err
}

// travel takes a request's time, at whose end the sender must live.
func (c *wire) travel(ctx context.Context, words ...any) error {
	if c.from.pass() != nil {
		return errBroken
	}
	if err := sleep(ctx, c.w.journey(words...)); err != nil {
		return status.FromContextError(err).Err()
	}
	if c.from.pass() != nil {
		return errBroken
	}
	return nil
}

// journey is how long a message is on its way.
func (w *world) journey(words ...any) time.Duration {
	if w.rough(0.02, append(words, "delayed")...) {
		return w.between(time.Second, 20*time.Second, words...)
	}
	return w.between(100*time.Microsecond, 20*time.Millisecond, words...)
}

// NewStream implements grpc.ClientConnInterface.
func (c *wire) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := c.travel(ctx, "stream", c.from.id, c.to, c.w.nth("stream", c.from.id, c.to)); err != nil {
		return nil, err
	}
	m := c.target("")
	if m == nil || m.pass() != nil {
		return nil, errBroken
	}
	inner, cancel := context.WithCancel(ctx)
	stopWatching := context.AfterFunc(m.ctx, cancel)
	stop := func() { stopWatching(); cancel() }
	context.AfterFunc(c.from.ctx, func() {
		if c.from.dead.Load() {
			stop()
		}
	})
	s, err := m.c.Conn().NewStream(inner, desc, method, opts...)
	if err != nil {
		stop()
		return nil, err
	}
	f := &wireStream{ClientStream: s, c: c, m: m, ctx: inner, cancel: stop, arrived: make(chan *amendsv1.AttendResponse, 1024),
		sending: make(chan struct{}, 1), broken: make(chan struct{})}
	c.w.running.Go(f.pump)
	return f, nil
}

// wireStream brings each call and each outcome by itself, so that they pass each
// other, come twice, late, or not at all. Everything else comes at once.
type wireStream struct {
	grpc.ClientStream
	c       *wire
	m       *member
	ctx     context.Context // of the stream itself
	cancel  func()
	arrived chan *amendsv1.AttendResponse
	sending chan struct{} // held by who sends: virtual time knows of no mutex

	once   sync.Once
	err    error // read it after broken
	broken chan struct{}
}

func (s *wireStream) fail(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.broken)
		s.cancel()
	})
}

// pump takes what the coordinator sends.
func (s *wireStream) pump() {
	for {
		var m amendsv1.AttendResponse
		if err := s.ClientStream.RecvMsg(&m); err != nil {
			s.fail(err)
			return
		}
		if m.GetCalls() == nil {
			s.arrive(&m)
			continue
		}
		for _, call := range m.GetCalls().GetCalls() {
			one := &amendsv1.AttendResponse{Message: &amendsv1.AttendResponse_Calls{Calls: &amendsv1.Calls{Calls: []*amendsv1.Call{call}}}}
			s.deliver("call", nameOf(call), s.m.process, s.c.from, func() { s.arrive(proto.CloneOf(one)) })
		}
	}
}

// nameOf is what a call or outcome is about.
func nameOf(m interface {
	GetGid() string
	GetIndex() int32
	GetOp() amendsv1.Op
	GetAttempt() int32
}) string {
	return m.GetGid() + "/" + string('0'+m.GetIndex()) + " " + m.GetOp().String()[3:] + " " + string('0'+m.GetAttempt()%10)
}

// deliver brings a message, once, twice or never.
func (s *wireStream) deliver(kind, name string, from, to *process, bring func()) {
	w := s.c.w
	id := []any{kind, name, from.id, to.id, w.nth(kind, name, from.id, to.id)}
	at := func(p float64, what string) bool { return w.rough(p, append(id, what)...) }
	copies := 1
	switch {
	case from.pass() != nil:
		return
	case at(0.01, "crash at send"):
		from.kill("as it sends %s %s", kind, name)
		return
	case at(0.03, "lost"):
		w.fault(kind+" lost", from.id, "%s to %s", name, to.id)
		return
	case at(0.03, "twice"):
		w.fault(kind+" repeated", from.id, "%s to %s", name, to.id)
		copies = 2
	case at(0.01, "cut"):
		w.fault("stream cut", from.id, "at %s %s to %s", kind, name, to.id)
		s.fail(errBroken)
		return
	}
	for i := range copies {
		w.running.Go(func() {
			if sleep(s.ctx, w.journey(append(id, i)...)) != nil || to.pass() != nil {
				return
			}
			if at(0.005, "crash at receive") {
				to.kill("as it receives %s %s", kind, name)
				return
			}
			bring()
		})
	}
}

func (s *wireStream) arrive(m *amendsv1.AttendResponse) {
	if s.c.from.pass() != nil {
		return
	}
	select {
	case s.arrived <- m:
	case <-s.ctx.Done():
	}
}

// RecvMsg implements grpc.ClientStream.
func (s *wireStream) RecvMsg(m any) error {
	select {
	case got := <-s.arrived:
		into := m.(*amendsv1.AttendResponse)
		proto.Reset(into)
		proto.Merge(into, got)
		return nil
	case <-s.broken:
		return s.err
	}
}

// SendMsg implements grpc.ClientStream.
func (s *wireStream) SendMsg(m any) error {
	outcomes := m.(*amendsv1.AttendRequest).GetOutcomes().GetOutcomes()
	if outcomes == nil {
		return s.send(m)
	}
	for _, o := range outcomes {
		o = proto.CloneOf(o)
		// Some participants promise nothing about repeated calls, which is always right.
		o.Recorded = o.GetRecorded() && s.c.w.happens(0.8, "recorded", o.GetGid(), o.GetIndex())
		one := &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: &amendsv1.Outcomes{
			Outcomes: []*amendsv1.Outcome{o}}}}
		s.deliver("outcome", nameOf(o), s.c.from, s.m.process, func() {
			if err := s.send(one); err != nil {
				s.fail(err)
			}
		})
	}
	return nil
}

func (s *wireStream) send(m any) error {
	if s.c.from.pass() != nil || s.m.pass() != nil {
		return errBroken
	}
	select {
	case s.sending <- struct{}{}:
		defer func() { <-s.sending }()
		return s.ClientStream.SendMsg(m)
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
