// Package gatewaytest is a coordinator for the tests of the gateway and of the
// console: the admin, operator and cluster services over transactions in memory
// that a test writes and changes by hand. It drives nothing and knows no
// machine: a verb does what the test's script says.
package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Caller is who a bearer token stands for.
type Caller struct {
	Subject string
	Roles   []amendsv1.Role
}

// Act is one call of a verb that was let through.
type Act struct {
	Verb    amendsv1.Verb
	GID     string
	Branch  string
	Reason  string
	ETag    string
	Request string // request_id
	Actor   string
	Reply   []byte
}

// Coordinator is the fake. Its methods are safe to be called at once.
type Coordinator struct {
	amendsv1.UnimplementedAdminServiceServer
	amendsv1.UnimplementedOperatorServiceServer
	amendsv1.UnimplementedClusterServiceServer

	// Overview, Cluster and Participants are what ClusterService answers. The
	// counts of Overview are the fake's own. Set them before Serve.
	Overview     *amendsv1.GetOverviewResponse
	Cluster      *amendsv1.GetClusterResponse
	Participants []*amendsv1.Participant

	mu      sync.Mutex
	order   []string // gids, oldest first
	byGID   map[string]*transaction
	bulks   []*amendsv1.Bulk
	callers map[string]Caller
	acts    []Act
	onAct   func(Act) error
	headers metadata.MD // of the last call
}

type transaction struct {
	*amendsv1.Transaction
	events  []*amendsv1.Event
	changed chan struct{} // closed at the next change
}

// New returns a coordinator without transactions, which asks nobody who they
// are until Grant is called.
func New() *Coordinator {
	return &Coordinator{byGID: map[string]*transaction{}, callers: map[string]Caller{}}
}

// Serve returns a connection to the coordinator, which ends with the test.
func (c *Coordinator) Serve(t testing.TB) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnaryInterceptor(c.unary), grpc.StreamInterceptor(c.stream))
	amendsv1.RegisterAdminServiceServer(server, c)
	amendsv1.RegisterOperatorServiceServer(server, c)
	amendsv1.RegisterClusterServiceServer(server, c)
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("the fake coordinator: %v", err)
		}
	}()
	conn, err := grpc.NewClient("passthrough:///fake",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Stop()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// Grant lets a bearer token in. From the first one on, others are kept out.
func (c *Coordinator) Grant(token string, caller Caller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.callers[token] = caller
}

// OnAct says what a verb does, beside being noted. An error is the answer.
func (c *Coordinator) OnAct(f func(Act) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onAct = f
}

// Acts are the verbs that were called and let through, in order.
func (c *Coordinator) Acts() []Act {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.acts)
}

// Metadata is what came along with the last call.
func (c *Coordinator) Metadata() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers.Copy()
}

// Put adds a transaction.
func (c *Coordinator) Put(tx *amendsv1.Transaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order = append(c.order, tx.GetGid())
	tx.Etag = "1"
	c.byGID[tx.GetGid()] = &transaction{Transaction: tx, changed: make(chan struct{})}
}

// Change changes a transaction and adds to its trail, at one go.
func (c *Coordinator) Change(gid string, change func(*amendsv1.Transaction), events ...*amendsv1.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx := c.byGID[gid]
	if change != nil {
		change(tx.Transaction)
	}
	for _, ev := range events {
		ev.Gid, ev.Seq = gid, int64(len(tx.events)+1)
		if n := len(tx.events); n > 0 {
			ev.PrevHash = tx.events[n-1].GetHash()
		}
		ev.Hash = amendsv1.AuditHash(ev.GetPrevHash(), "", gid, ev.GetSeq(), ev.GetTime().AsTime(), ev.GetType(), ev.GetData())
		tx.events = append(tx.events, ev)
		tx.EventSeq, tx.EventHash, tx.UpdateTime = ev.GetSeq(), ev.GetHash(), ev.GetTime()
	}
	tx.Etag = fmt.Sprint(len(tx.events) + 1)
	close(tx.changed)
	tx.changed = make(chan struct{})
}

// Event makes an audit event; it panics on a detail that JSON does not have.
func Event(at time.Time, kind string, detail map[string]any) *amendsv1.Event {
	data, err := json.Marshal(detail)
	if err != nil {
		panic(err)
	}
	fields, err := structpb.NewStruct(detail)
	if err != nil {
		panic(err)
	}
	return &amendsv1.Event{Time: timestamppb.New(at), Type: kind, Detail: fields, Data: data}
}

// caller tells who asks, and notes what came along.
func (c *Coordinator) caller(ctx context.Context) (Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = md
	if len(c.callers) == 0 {
		return Caller{Roles: []amendsv1.Role{amendsv1.Role_ROLE_BREAK_GLASS}}, nil
	}
	for _, h := range md.Get("authorization") {
		if who, ok := c.callers[strings.TrimPrefix(h, "Bearer ")]; ok {
			return who, nil
		}
	}
	return Caller{}, amendsv1.ErrUnauthenticated.With("the token is not one of ours")
}

// admit is the table of who may call what.
func (c *Coordinator) admit(ctx context.Context, method string) error {
	who, err := c.caller(ctx)
	if err != nil {
		return err
	}
	has := func(roles ...amendsv1.Role) bool {
		return slices.ContainsFunc(roles, func(r amendsv1.Role) bool { return slices.Contains(who.Roles, r) })
	}
	reads := strings.Contains(method, "/Get") || strings.Contains(method, "/List")
	switch {
	case !strings.HasPrefix(method, "/amends.v1.OperatorService/") || reads:
		return nil
	case strings.HasSuffix(method, "/Abandon") && !has(amendsv1.Role_ROLE_BREAK_GLASS):
		return amendsv1.ErrPermission.With("Abandon needs the role break-glass in this namespace")
	case !has(amendsv1.Role_ROLE_OPERATOR, amendsv1.Role_ROLE_BREAK_GLASS):
		return amendsv1.ErrPermission.With("%s needs the role operator in this namespace", method[strings.LastIndex(method, "/")+1:])
	}
	return nil
}

func (c *Coordinator) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	resp, err := next(ctx, req)
	if m, ok := resp.(proto.Message); ok && err == nil {
		c.mu.Lock() // what is sent later must not change meanwhile
		defer c.mu.Unlock()
		return proto.Clone(m), nil
	}
	return resp, err
}

func (c *Coordinator) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.admit(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}
