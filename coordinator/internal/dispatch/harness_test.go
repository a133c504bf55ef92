package dispatch

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// world is a Hub behind a gRPC server in memory.
type world struct {
	t    testing.TB
	hub  *Hub
	conn *grpc.ClientConn

	mu  sync.Mutex
	got []Outcome
}

type attendServer struct {
	amendsv1.UnimplementedParticipantServiceServer
	hub *Hub
}

// namespaceOf is what a test's participant says that its namespace is.
func namespaceOf(s amendsv1.ParticipantService_AttendServer) string {
	md, _ := metadata.FromIncomingContext(s.Context())
	return strings.Join(md.Get(amendsv1.NamespaceHeader), "")
}

func (a attendServer) Attend(s amendsv1.ParticipantService_AttendServer) error {
	return a.hub.Attend(namespaceOf(s), s)
}

// newWorld collects outcomes unless deliver is given.
func newWorld(t testing.TB, cfg *Config, deliver func(Outcome)) *world {
	t.Helper()
	w := &world{t: t}
	if deliver == nil {
		deliver = w.collect
	}
	if cfg == nil {
		cfg = &Config{}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	w.hub = New(deliver, cfg)
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	amendsv1.RegisterParticipantServiceServer(server, attendServer{hub: w.hub})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///hub",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	w.conn = conn
	t.Cleanup(func() {
		w.hub.Close()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		serving.Wait()
	})
	return w
}

func (w *world) collect(o Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, o)
}

// outcomes waits until nothing moves and returns what was delivered since the
// last time.
func (w *world) outcomes() []Outcome {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got
	w.got = nil
	return got
}

// participant is written by hand against the protocol.
type participant struct {
	t      testing.TB
	stream amendsv1.ParticipantService_AttendClient
	cancel context.CancelFunc

	mu      sync.Mutex
	calls   []*amendsv1.Call
	welcome *amendsv1.Welcome
	pongs   int
	err     error
	ended   bool
}

func hello(service, instance string, capacity int, actions ...string) *amendsv1.Hello {
	return &amendsv1.Hello{
		ProtocolVersion: 1, Service: service, Instance: instance, Actions: actions, Capacity: int32(capacity),
	}
}

// dial opens a stream without a hello. keepalive pings for it.
func (w *world) dial() *participant { return w.dialIn("") }

// dialIn is dial in a namespace.
func (w *world) dialIn(namespace string) *participant {
	w.t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), amendsv1.NamespaceHeader, namespace))
	stream, err := amendsv1.NewParticipantServiceClient(w.conn).Attend(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cancel)
	return &participant{t: w.t, stream: stream, cancel: cancel}
}

// attend opens a stream, says hello and starts to receive.
func (w *world) attend(h *amendsv1.Hello) *participant { return w.attendIn("", h) }

// attendIn is attend in a namespace.
func (w *world) attendIn(namespace string, h *amendsv1.Hello) *participant {
	w.t.Helper()
	p := w.dialIn(namespace)
	p.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: h}})
	go p.receive()
	synctest.Wait()
	return p
}

func (p *participant) receive() {
	for {
		m, err := p.stream.Recv()
		p.mu.Lock()
		switch m := m.GetMessage().(type) {
		case *amendsv1.AttendResponse_Welcome:
			p.welcome = m.Welcome
		case *amendsv1.AttendResponse_Calls:
			p.calls = append(p.calls, m.Calls.GetCalls()...)
		case *amendsv1.AttendResponse_Pong:
			p.pongs++
		}
		if err != nil {
			p.err, p.ended = amendsv1.FromError(err), true
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *participant) send(m *amendsv1.AttendRequest) {
	p.t.Helper()
	if err := p.stream.Send(m); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

func (p *participant) ping() {
	p.t.Helper()
	p.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Ping{Ping: &amendsv1.Ping{}}})
}

// pingFor keeps the stream alive for d of virtual time.
func (p *participant) pingFor(d, every time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		p.ping()
		time.Sleep(min(every, time.Until(end)))
	}
	synctest.Wait()
}

// take waits until nothing moves and returns the calls since the last time.
func (p *participant) take() []*amendsv1.Call {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

// lost returns the error that the stream ended with.
func (p *participant) lost() (error, bool) {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err, p.ended
}

func answerTo(c *amendsv1.Call, code amendsv1.OutcomeCode, reply string) *amendsv1.Outcome {
	o := &amendsv1.Outcome{Gid: c.GetGid(), Index: c.GetIndex(), Op: c.GetOp(), Attempt: c.GetAttempt(), Code: code}
	if o.Code == amendsv1.OutcomeCode_OUTCOME_CODE_OK {
		o.Reply = []byte(reply)
	} else {
		o.Message = reply
	}
	return o
}

// ok answers every call.
func (p *participant) ok(calls ...*amendsv1.Call) {
	p.t.Helper()
	var all []*amendsv1.Outcome
	for _, c := range calls {
		all = append(all, answerTo(c, amendsv1.OutcomeCode_OUTCOME_CODE_OK, "done "+c.GetGid()))
	}
	p.answer(all...)
}

func (p *participant) answer(o ...*amendsv1.Outcome) {
	p.t.Helper()
	p.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: &amendsv1.Outcomes{Outcomes: o}}})
}

func do(gid, action string) Call {
	return Call{GID: gid, Call: txn.Call{Branch: 0, Name: "step", Action: action, Op: txn.Do, Attempt: 1, Payload: []byte("{}")}}
}

func again(c Call) Call { c.Attempt++; return c }

func gids(calls []*amendsv1.Call) []string {
	out := []string{}
	for _, c := range calls {
		out = append(out, c.GetGid())
	}
	return out
}
