package forward_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/coordinator/internal/forward"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const (
	patience = 60 * time.Second
	toHeader = "test-to" // stands for the seal
)

// cluster is a fake engine's idea of who owns everything.
type cluster struct {
	mu      sync.Mutex
	self    string
	owner   store.Member
	refresh func() // called at every Refresh
	alone   bool   // there is no other member
}

func (c *cluster) own(m store.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owner = m
}

func (c *cluster) Members() []store.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alone {
		return []store.Member{{Name: c.self}}
	}
	return []store.Member{{Name: c.self}, c.owner}
}

func (c *cluster) Route(string) (store.Member, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owner, c.owner.Name == c.self
}

func (c *cluster) Refresh(context.Context) error {
	if c.refresh != nil {
		c.refresh()
	}
	return nil
}

// handlers are what a member does with what it gets.
type handlers struct {
	amendsv1.UnimplementedTransactionServiceServer
	amendsv1.UnimplementedOperatorServiceServer
	amendsv1.UnimplementedAdminServiceServer
	amendsv1.UnimplementedClusterServiceServer
	start func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error)
	wait  func(context.Context, *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error)
	pause func(*amendsv1.PauseRequest) error
	watch func(*amendsv1.WatchTransactionRequest, grpc.ServerStreamingServer[amendsv1.WatchTransactionResponse]) error
}

func (h *handlers) StartSaga(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
	return h.start(ctx, r)
}

func (h *handlers) WaitTransaction(ctx context.Context, r *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
	return h.wait(ctx, r)
}

func (h *handlers) Pause(_ context.Context, r *amendsv1.PauseRequest) (*amendsv1.PauseResponse, error) {
	return &amendsv1.PauseResponse{}, h.pause(r)
}

func (h *handlers) WatchTransaction(r *amendsv1.WatchTransactionRequest, s grpc.ServerStreamingServer[amendsv1.WatchTransactionResponse]) error {
	return h.watch(r, s)
}

// node is a member with a Forwarder, and a connection to it.
type node struct {
	*cluster
	*handlers
	forward *forward.Forwarder
	member  store.Member
	conn    *grpc.ClientConn
	stop    func() // ends the Forwarder's Run
}

func newNode(t *testing.T, name string, wait time.Duration) *node {
	t.Helper()
	n := &node{cluster: &cluster{self: name}, handlers: &handlers{}}
	n.forward = forward.New(n.cluster, forward.Config{
		Self: name, Namespace: func(context.Context) string { return "ns" }, Patience: wait,
		Forwarded: func(ctx context.Context) bool { return len(metadata.ValueFromIncomingContext(ctx, toHeader)) > 0 },
		Vouch: func(ctx context.Context, to, _ string, _ proto.Message) (context.Context, error) {
			return metadata.AppendToOutgoingContext(ctx, toHeader, to), nil
		},
		Private: func(name string) bool { return name == "authorization" },
	})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	r := n.forward.Registrar(srv)
	amendsv1.RegisterTransactionServiceServer(r, n.handlers)
	amendsv1.RegisterOperatorServiceServer(r, n.handlers)
	amendsv1.RegisterAdminServiceServer(r, n.handlers)
	amendsv1.RegisterClusterServiceServer(r, n.handlers)
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return srv.Serve(lis) })
	g.Go(func() error { return n.forward.Run(ctx) })
	n.stop = stop
	n.member = store.Member{Name: name, Address: lis.Addr().String()}
	if n.conn, err = grpc.NewClient(n.member.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		srv.Stop()
		if err := errors.Join(n.conn.Close(), g.Wait()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// pair is two members, of which the second owns everything.
func pair(t *testing.T, wait time.Duration) (asked, owner *node) {
	asked, owner = newNode(t, "asked", wait), newNode(t, "owner", wait)
	asked.own(owner.member)
	owner.own(owner.member)
	asked.start = func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		return nil, errors.New("answered by the member that was asked")
	}
	return asked, owner
}

func (n *node) ask(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return amendsv1.NewTransactionServiceClient(n.conn).StartSaga(ctx, r)
}

func started(gid string) *amendsv1.StartSagaResponse {
	return &amendsv1.StartSagaResponse{Transaction: &amendsv1.Transaction{Gid: gid}, Created: true}
}
