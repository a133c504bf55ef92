package gatewaytest

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Outbox is a relay: OutboxService over messages in memory, and WhoAmI. It
// publishes nothing. Its methods are safe to be called at once.
type Outbox struct {
	amendsv1.UnimplementedOutboxServiceServer
	amendsv1.UnimplementedClusterServiceServer

	mu      sync.Mutex
	status  *amendsv1.GetOutboxResponse
	waiting []*amendsv1.OutboxMessage
	dead    []*amendsv1.DeadLetter
	blocked []*amendsv1.BlockedKey
	acts    []*amendsv1.OutboxAct
	callers map[string]Caller
	headers metadata.MD // of the last call
	down    error
}

// NewOutbox returns a relay with these messages, which asks nobody who they are
// until Grant is called. The counts of status are its own.
func NewOutbox(status *amendsv1.GetOutboxResponse, waiting []*amendsv1.OutboxMessage, dead []*amendsv1.DeadLetter, blocked []*amendsv1.BlockedKey) *Outbox {
	if status == nil {
		status = &amendsv1.GetOutboxResponse{}
	}
	return &Outbox{status: status, waiting: waiting, dead: dead, blocked: blocked, callers: map[string]Caller{}}
}

// Serve returns a connection to the relay, which ends with the test.
func (o *Outbox) Serve(t testing.TB) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnaryInterceptor(o.unary))
	amendsv1.RegisterOutboxServiceServer(server, o)
	amendsv1.RegisterClusterServiceServer(server, o)
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("the fake relay: %v", err)
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
func (o *Outbox) Grant(token string, caller Caller) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.callers[token] = caller
}

// Fail makes every call end with an error; nil ends that.
func (o *Outbox) Fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = err
}

// Acts are what was done, oldest first.
func (o *Outbox) Acts() []*amendsv1.OutboxAct {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.acts)
}

// Act notes that somebody did something, without doing it.
func (o *Outbox) Act(verb amendsv1.OutboxVerb, actor, target, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acts = append(o.acts, &amendsv1.OutboxAct{
		Number: int64(len(o.acts) + 1), Verb: verb, Actor: actor, Target: target, Reason: reason, Messages: 1, ActTime: timestamppb.Now(),
	})
}

// Metadata is what came along with the last call.
func (o *Outbox) Metadata() metadata.MD {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.headers.Copy()
}

type outboxCaller struct{}

func (o *Outbox) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	o.mu.Lock()
	defer o.mu.Unlock() // one call at a time
	o.headers, _ = metadata.FromIncomingContext(ctx)
	if o.down != nil {
		return nil, o.down
	}
	who := Caller{Roles: []amendsv1.Role{amendsv1.Role_ROLE_OPERATOR}}
	if len(o.callers) > 0 {
		known := false
		for _, h := range o.headers.Get("authorization") {
			who, known = o.callers[strings.TrimPrefix(h, "Bearer ")]
		}
		if !known {
			return nil, amendsv1.ErrUnauthenticated.With("the token is not one of this relay's")
		}
	}
	_, acts := req.(interface{ GetReason() string })
	if acts && !slices.Contains(who.Roles, amendsv1.Role_ROLE_OPERATOR) {
		return nil, amendsv1.ErrPermission.With("%s needs the role operator", info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:])
	}
	resp, err := next(context.WithValue(ctx, outboxCaller{}, who), req)
	if m, ok := resp.(proto.Message); ok && err == nil {
		return proto.Clone(m), nil // what is sent later must not change meanwhile
	}
	return resp, err
}

// WhoAmI implements ClusterService.
func (o *Outbox) WhoAmI(ctx context.Context, _ *amendsv1.WhoAmIRequest) (*amendsv1.WhoAmIResponse, error) {
	who, _ := ctx.Value(outboxCaller{}).(Caller)
	return &amendsv1.WhoAmIResponse{Subject: who.Subject, Roles: who.Roles, Authenticated: len(o.callers) > 0}, nil
}

// GetOutbox implements OutboxService.
func (o *Outbox) GetOutbox(context.Context, *amendsv1.GetOutboxRequest) (*amendsv1.GetOutboxResponse, error) {
	s := proto.CloneOf(o.status)
	s.Messages, s.DeadLetters, s.BlockedKeys = int64(len(o.waiting)), int64(len(o.dead)), int64(len(o.blocked))
	return s, nil
}

// filtered are the messages of a topic and key.
func filtered[M interface {
	GetTopic() string
	GetKey() string
}](all []M, by interface {
	GetTopic() string
	GetKey() string
}) (some []M) {
	for _, m := range all {
		if (by.GetTopic() == "" || by.GetTopic() == m.GetTopic()) && (by.GetKey() == "" || by.GetKey() == m.GetKey()) {
			some = append(some, m)
		}
	}
	return some
}

// page is a page of some things; a page token is how many were before.
func page[M any](all []M, size int32, token string) (some []M, next string, err error) {
	from := 0
	if token != "" {
		if from, err = strconv.Atoi(token); err != nil || from < 0 || from > len(all) {
			return nil, "", amendsv1.ErrPageToken
		}
	}
	if size == 0 {
		size = 100
	}
	to := min(from+int(size), len(all))
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return all[from:to], next, nil
}

// ListMessages implements OutboxService.
func (o *Outbox) ListMessages(_ context.Context, r *amendsv1.ListMessagesRequest) (*amendsv1.ListMessagesResponse, error) {
	some, next, err := page(filtered(o.waiting, r), r.GetPageSize(), r.GetPageToken())
	return &amendsv1.ListMessagesResponse{Messages: some, NextPageToken: next}, err
}

// ListDeadLetters implements OutboxService.
func (o *Outbox) ListDeadLetters(_ context.Context, r *amendsv1.ListDeadLettersRequest) (*amendsv1.ListDeadLettersResponse, error) {
	some, next, err := page(filtered(o.dead, r), r.GetPageSize(), r.GetPageToken())
	resp := &amendsv1.ListDeadLettersResponse{NextPageToken: next}
	for _, d := range some {
		brief := proto.CloneOf(d)
		brief.Body, brief.Headers = nil, nil
		resp.DeadLetters = append(resp.DeadLetters, brief)
	}
	return resp, err
}

// GetDeadLetter implements OutboxService.
func (o *Outbox) GetDeadLetter(_ context.Context, r *amendsv1.GetDeadLetterRequest) (*amendsv1.GetDeadLetterResponse, error) {
	for _, d := range o.dead {
		if d.GetNumber() == r.GetNumber() {
			return &amendsv1.GetDeadLetterResponse{DeadLetter: d}, nil
		}
	}
	return nil, amendsv1.ErrNotFound.With("there is no dead letter %d", r.GetNumber())
}

// ListBlockedKeys implements OutboxService.
func (o *Outbox) ListBlockedKeys(_ context.Context, r *amendsv1.ListBlockedKeysRequest) (*amendsv1.ListBlockedKeysResponse, error) {
	some, next, err := page(o.blocked, r.GetPageSize(), r.GetPageToken())
	return &amendsv1.ListBlockedKeysResponse{BlockedKeys: some, NextPageToken: next}, err
}

// ListOutboxActs implements OutboxService.
func (o *Outbox) ListOutboxActs(_ context.Context, r *amendsv1.ListOutboxActsRequest) (*amendsv1.ListOutboxActsResponse, error) {
	newest := slices.Clone(o.acts)
	slices.Reverse(newest)
	some, next, err := page(newest, r.GetPageSize(), r.GetPageToken())
	return &amendsv1.ListOutboxActsResponse{Acts: some, NextPageToken: next}, err
}
