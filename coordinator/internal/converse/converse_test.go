package converse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/coordinator/internal/converse"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const (
	patience = 60 * time.Second
	capacity = 1024
)

// fake answers starts by their gids.
type fake struct {
	amendsv1.UnimplementedTransactionServiceServer
	begun   chan string   // gids whose starts wait
	release chan struct{} // closed: they are answered
	ended   chan error    // contexts that ended first
}

func newFake() *fake {
	return &fake{begun: make(chan string, 4*capacity), release: make(chan struct{}), ended: make(chan error, 4*capacity)}
}

func (f *fake) StartSaga(ctx context.Context, req *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
	switch req.GetGid() {
	case "full":
		return nil, amendsv1.ErrOverloaded.With("full").WithRetryAfter(time.Second)
	case "odd":
		return nil, errors.New("no status")
	case "waits":
		f.begun <- req.GetName()
		select {
		case <-f.release:
		case <-ctx.Done():
			f.ended <- ctx.Err()
			return nil, ctx.Err()
		}
	}
	return &amendsv1.StartSagaResponse{Created: true, Transaction: &amendsv1.Transaction{Name: req.GetName()}}, nil
}

// talk opens a conversation with a server of its own.
func talk(t testing.TB, f *fake) (*converse.Server, amendsv1.TransactionService_ConverseClient) {
	t.Helper()
	talks, srv, lis := converse.New(), grpc.NewServer(), bufconn.Listen(1<<16)
	amendsv1.RegisterTransactionServiceServer(talks.Registrar(srv), f)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() {
		cancel()
		conn.Close()
		srv.GracefulStop()
		<-served
	})
	stream, err := amendsv1.NewTransactionServiceClient(conn).Converse(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if welcome := hear(t, stream); welcome.GetCapacity() != capacity {
		t.Fatalf("welcomed with %v", welcome)
	}
	return talks, stream
}

func hear(t testing.TB, stream amendsv1.TransactionService_ConverseClient) *amendsv1.ConverseResponse {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// answers hears until there are n, by id.
func answers(t testing.TB, stream amendsv1.TransactionService_ConverseClient, n int) map[uint64]*amendsv1.Answer {
	t.Helper()
	all := map[uint64]*amendsv1.Answer{}
	for len(all) < n {
		for _, a := range hear(t, stream).GetAnswers() {
			if all[a.GetId()] != nil {
				t.Fatalf("two answers to %d", a.GetId())
			}
			all[a.GetId()] = a
		}
	}
	return all
}

func say(t testing.TB, stream amendsv1.TransactionService_ConverseClient, m *amendsv1.ConverseRequest) {
	t.Helper()
	if err := stream.Send(m); err != nil {
		t.Fatal(err)
	}
}

func start(t testing.TB, id uint64, gid string) *amendsv1.Ask {
	t.Helper()
	raw, err := proto.Marshal(&amendsv1.StartSagaRequest{Gid: gid, Name: fmt.Sprint(id)})
	if err != nil {
		t.Fatal(err)
	}
	return &amendsv1.Ask{Id: id, Method: "StartSaga", Request: raw}
}

// TestAnswers: each request of a message has an answer of its own, as an RPC
// would have had it.
func TestAnswers(t *testing.T) {
	_, stream := talk(t, newFake())
	late := start(t, 6, "waits")
	late.TimeoutMs = 1
	say(t, stream, &amendsv1.ConverseRequest{Cancel: []uint64{1, 99}, Asks: []*amendsv1.Ask{
		start(t, 0, ""), start(t, 1, "full"), start(t, 2, "odd"), {Id: 3, Method: "Converse"}, {Id: 4, Method: "StartSaga", Request: []byte{255}},
		{Id: 5, Method: "BeginTcc"}, late,
	}})
	got := answers(t, stream, 7)
	var ok amendsv1.StartSagaResponse
	if err := proto.Unmarshal(got[0].GetResponse(), &ok); err != nil || got[0].GetStatus() != nil || !ok.GetCreated() {
		t.Errorf("a success is %v: %v", got[0], err)
	}
	for id, want := range map[uint64]codes.Code{
		1: codes.ResourceExhausted, 2: codes.Unknown, 3: codes.Unimplemented, 4: codes.Internal, 5: codes.Unimplemented, 6: codes.DeadlineExceeded,
	} {
		if err := amendsv1.DecodeStatus(got[id].GetStatus()); status.Code(err) != want {
			t.Errorf("%d is %v, want %v", id, err, want)
		}
	}
	known := new(amendsv1.Error)
	if err := amendsv1.FromError(amendsv1.DecodeStatus(got[1].GetStatus())); !errors.As(err, &known) || known.RetryAfter != time.Second {
		t.Errorf("a refusal is %v: want one that says when to come again", err)
	}
}

// TestCancel: a request that nobody waits for any more ends.
func TestCancel(t *testing.T) {
	f := newFake()
	_, stream := talk(t, f)
	say(t, stream, &amendsv1.ConverseRequest{Asks: []*amendsv1.Ask{start(t, 7, "waits")}})
	<-f.begun
	say(t, stream, &amendsv1.ConverseRequest{Cancel: []uint64{8, 7, 7}})
	if err := <-f.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if err := amendsv1.DecodeStatus(answers(t, stream, 1)[7].GetStatus()); status.Code(err) != codes.Canceled {
		t.Errorf("its answer is %v", err)
	}
	say(t, stream, &amendsv1.ConverseRequest{Asks: []*amendsv1.Ask{start(t, 7, "")}}) // the id is free again
	answers(t, stream, 1)
}

// TestTwice: whoever gives an id twice cannot tell the answers apart.
func TestTwice(t *testing.T) {
	f := newFake()
	_, stream := talk(t, f)
	say(t, stream, &amendsv1.ConverseRequest{Asks: []*amendsv1.Ask{start(t, 7, "waits"), start(t, 7, "")}})
	for {
		if _, err := stream.Recv(); err != nil {
			if !errors.Is(amendsv1.FromError(err), amendsv1.ErrInvalidArgument) {
				t.Errorf("the stream ended with %v, want ErrInvalidArgument", err)
			}
			break
		}
	}
	<-f.ended // what was under way, too
}

// TestCapacity: over it, requests wait, and none is lost.
func TestCapacity(t *testing.T) {
	f := newFake()
	_, stream := talk(t, f)
	const all = capacity + 300
	m := &amendsv1.ConverseRequest{}
	for id := range uint64(all) {
		m.Asks = append(m.Asks, start(t, id, "waits"))
	}
	say(t, stream, m)
	for range capacity {
		<-f.begun
	}
	select {
	case gid := <-f.begun:
		t.Errorf("%s has begun over the capacity", gid)
	default:
	}
	close(f.release)
	answers(t, stream, all)
}

// TestClose: half-closing asks for what is under way, and so does a drain of the
// server, at whose end nothing was refused.
func TestClose(t *testing.T) {
	f := newFake()
	talks, stream := talk(t, f)
	say(t, stream, &amendsv1.ConverseRequest{Asks: []*amendsv1.Ask{start(t, 1, "waits")}})
	<-f.begun
	talks.Drain()
	if m := hear(t, stream); !m.GetDrain() {
		t.Fatalf("heard %v, want a drain", m)
	}
	say(t, stream, &amendsv1.ConverseRequest{Asks: []*amendsv1.Ask{start(t, 2, "waits")}}) // on its way when that was said
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	<-f.begun
	close(f.release)
	for id, a := range answers(t, stream, 2) {
		if a.GetStatus() != nil {
			t.Errorf("%d was answered with %v", id, amendsv1.DecodeStatus(a.GetStatus()))
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}

// TestGone: what is under way ends with its client.
func TestGone(t *testing.T) {
	f := newFake()
	srv, lis := grpc.NewServer(), bufconn.Listen(1<<16)
	amendsv1.RegisterTransactionServiceServer(converse.New().Registrar(srv), f)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := amendsv1.NewTransactionServiceClient(conn).Converse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say(t, stream, &amendsv1.ConverseRequest{Asks: []*amendsv1.Ask{start(t, 1, "waits"), start(t, 2, "waits")}})
	<-f.begun
	<-f.begun
	conn.Close()
	for range 2 {
		if err := <-f.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	}
	srv.GracefulStop()
	<-served
}

// FuzzConverse: whatever a message holds, each of its requests is answered once
// or the stream ends with an error.
func FuzzConverse(f *testing.F) {
	seed := &amendsv1.ConverseRequest{Cancel: []uint64{3}, Asks: []*amendsv1.Ask{
		start(f, 1, ""), start(f, 1, "full"), {Id: 2}, {Id: 3, Method: "StartSaga", Request: []byte{1, 2}, TimeoutMs: 1},
	}}
	raw, err := proto.Marshal(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := new(amendsv1.ConverseRequest)
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		fk := newFake()
		close(fk.release)
		_, stream := talk(t, fk)
		say(t, stream, m)
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			n += len(m.GetAnswers())
		}
		if n != len(m.GetAsks()) {
			t.Errorf("%d answers to %d requests", n, len(m.GetAsks()))
		}
	})
}
