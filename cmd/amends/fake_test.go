package main_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// fake is a coordinator that does what a test tells it to, and remembers what it
// was asked.
type fake struct {
	amendsv1.UnimplementedAdminServiceServer
	amendsv1.UnimplementedOperatorServiceServer
	amendsv1.UnimplementedClusterServiceServer

	mu      sync.Mutex
	fails   []error // the answers to the next requests to act
	asked   []proto.Message
	headers metadata.MD // of the last request
	polls   int
}

// start serves the fake until the test ends.
func (f *fake) start(t *testing.T, opts ...grpc.ServerOption) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	lis, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(append(opts, grpc.UnaryInterceptor(f.remember))...)
	amendsv1.RegisterAdminServiceServer(srv, f)
	amendsv1.RegisterOperatorServiceServer(srv, f)
	amendsv1.RegisterClusterServiceServer(srv, f)
	var g errgroup.Group
	g.Go(func() error { return srv.Serve(lis) })
	t.Cleanup(func() {
		srv.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return lis.Addr().String()
}

func (f *fake) remember(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	f.mu.Lock()
	f.headers, _ = metadata.FromIncomingContext(ctx)
	f.mu.Unlock()
	return next(ctx, req)
}

// act notes a request to act and answers as the test wants.
func (f *fake) act(req proto.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, req)
	if len(f.fails) == 0 {
		return nil
	}
	err := f.fails[0]
	f.fails = f.fails[1:]
	return err
}

// requests returns what was asked since the last call, and forgets it.
func (f *fake) requests() []proto.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// failNext has the next requests to act answered with these errors.
func (f *fake) failNext(errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = errs
}

// found lets the next bulk that is waited for be found at once.
func (f *fake) found() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls = 1
}

func (f *fake) header(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(f.headers.Get(name))
}

func lost() error { return status.Error(codes.Unavailable, "the connection broke") }

func (f *fake) RetryNow(_ context.Context, r *amendsv1.RetryNowRequest) (*amendsv1.RetryNowResponse, error) {
	return &amendsv1.RetryNowResponse{}, f.act(r)
}

func (f *fake) Abort(_ context.Context, r *amendsv1.AbortRequest) (*amendsv1.AbortResponse, error) {
	return &amendsv1.AbortResponse{}, f.act(r)
}

func (f *fake) Pause(_ context.Context, r *amendsv1.PauseRequest) (*amendsv1.PauseResponse, error) {
	return &amendsv1.PauseResponse{}, f.act(r)
}

func (f *fake) Resume(_ context.Context, r *amendsv1.ResumeRequest) (*amendsv1.ResumeResponse, error) {
	return &amendsv1.ResumeResponse{}, f.act(r)
}

func (f *fake) SkipStep(_ context.Context, r *amendsv1.SkipStepRequest) (*amendsv1.SkipStepResponse, error) {
	return &amendsv1.SkipStepResponse{}, f.act(r)
}

func (f *fake) CompleteStep(_ context.Context, r *amendsv1.CompleteStepRequest) (*amendsv1.CompleteStepResponse, error) {
	return &amendsv1.CompleteStepResponse{}, f.act(r)
}

func (f *fake) FailStep(_ context.Context, r *amendsv1.FailStepRequest) (*amendsv1.FailStepResponse, error) {
	return &amendsv1.FailStepResponse{}, f.act(r)
}

func (f *fake) Abandon(_ context.Context, r *amendsv1.AbandonRequest) (*amendsv1.AbandonResponse, error) {
	return &amendsv1.AbandonResponse{}, f.act(r)
}

// GetTransaction returns one in which everything is there to be shown.
func (f *fake) GetTransaction(_ context.Context, r *amendsv1.GetTransactionRequest) (*amendsv1.GetTransactionResponse, error) {
	return &amendsv1.GetTransactionResponse{Transaction: &amendsv1.Transaction{
		Gid: r.GetGid(), Namespace: "shop", Kind: amendsv1.Kind_KIND_SAGA, Name: "transfer", Stalled: true, WaitsFor: "accounts",
		State: amendsv1.State_STATE_ROLLING_BACK, Etag: "7", Verbs: []amendsv1.Verb{amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_PAUSE},
		Cause: &amendsv1.Cause{Branch: "credit", Code: "REFUSED", Message: "no such account"},
		Branches: []*amendsv1.Branch{
			{Name: "debit", Action: "accounts.debit", Phase: "UNDOING", Attempt: 4, Error: "connection refused",
				NextTime: timestamppb.New(time.Now().Add(time.Hour)),
				Verbs:    []amendsv1.Verb{amendsv1.Verb_VERB_SKIP_STEP, amendsv1.Verb_VERB_COMPLETE_STEP}},
			{Name: "credit", Action: "accounts.credit", Phase: "UNDONE", Attempt: 1, After: []string{"debit"}},
			{Name: "mail", Action: "mail.send", Phase: "PENDING", After: []string{"credit"}},
		},
	}}, nil
}

func (f *fake) ListEvents(context.Context, *amendsv1.ListEventsRequest) (*amendsv1.ListEventsResponse, error) {
	replied := func(branch, op, outcome string, attempt float64) *amendsv1.Event {
		detail, _ := structpb.NewStruct(map[string]any{"branch": branch, "op": op, "outcome": outcome, "attempt": attempt}) // always fits
		return &amendsv1.Event{Type: "replied", Detail: detail}
	}
	return &amendsv1.ListEventsResponse{Events: []*amendsv1.Event{
		{Type: "started"}, replied("debit", "do", "ok", 2), replied("credit", "do", "refused", 1),
		replied("credit", "undo", "ok", 1), replied("debit", "undo", "unknown", 3),
	}}, nil
}

func (f *fake) StartBulk(_ context.Context, r *amendsv1.StartBulkRequest) (*amendsv1.StartBulkResponse, error) {
	if err := f.act(r); err != nil {
		return nil, err
	}
	if r.GetValidateOnly() {
		return &amendsv1.StartBulkResponse{Bulk: &amendsv1.Bulk{Acted: 42}}, nil
	}
	return &amendsv1.StartBulkResponse{Bulk: f.bulk(r.GetRequestId(), 0)}, nil
}

func (f *fake) bulk(id string, acted int64) *amendsv1.Bulk {
	b := &amendsv1.Bulk{
		Id: id, Verb: amendsv1.Verb_VERB_RETRY_NOW, Filter: "unfinished = true", Rate: 20, Reason: "why", Actor: "alice",
		State: amendsv1.BulkState_BULK_STATE_RUNNING, Acted: acted,
	}
	switch {
	case id == "cancelled":
		b.State = amendsv1.BulkState_BULK_STATE_CANCELLED
	case acted == 2:
		b.State = amendsv1.BulkState_BULK_STATE_DONE
	}
	if id == "failing" {
		b.Failed, b.LastError = 1, "the disk is full"
	}
	return b
}

// GetBulk is lost at its first poll; the bulk has ended at the third.
func (f *fake) GetBulk(_ context.Context, r *amendsv1.GetBulkRequest) (*amendsv1.GetBulkResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls++
	if f.polls == 1 {
		return nil, lost()
	}
	return &amendsv1.GetBulkResponse{Bulk: f.bulk(r.GetId(), int64(f.polls-1))}, nil
}

// ListBulks has three bulks, in pages of two.
func (f *fake) ListBulks(_ context.Context, r *amendsv1.ListBulksRequest) (*amendsv1.ListBulksResponse, error) {
	if r.GetPageToken() == "" && r.GetPageSize() > 1 {
		return &amendsv1.ListBulksResponse{Bulks: []*amendsv1.Bulk{f.bulk("b3", 2), f.bulk("b2", 2)}, NextPageToken: "more"}, nil
	}
	return &amendsv1.ListBulksResponse{Bulks: []*amendsv1.Bulk{f.bulk("b1", 2)}}, nil
}

func (f *fake) CancelBulk(_ context.Context, r *amendsv1.CancelBulkRequest) (*amendsv1.CancelBulkResponse, error) {
	return &amendsv1.CancelBulkResponse{Bulk: f.bulk("cancelled", 1)}, f.act(r)
}

func (f *fake) GetOverview(context.Context, *amendsv1.GetOverviewRequest) (*amendsv1.GetOverviewResponse, error) {
	return &amendsv1.GetOverviewResponse{Running: 12, Stalled: 3, OldestGid: "old", StallAfter: durationpb.New(time.Minute), CommittedRate: 99.5}, nil
}

func (f *fake) GetCluster(context.Context, *amendsv1.GetClusterRequest) (*amendsv1.GetClusterResponse, error) {
	return &amendsv1.GetClusterResponse{Shards: 256, UnownedShards: 6, Members: []*amendsv1.Member{
		{Name: "one", Self: true, Shards: 100, Address: "one:7460", Version: "v9", StartTime: timestamppb.Now()},
		{Name: "two", Shards: 100, Draining: true, StartTime: timestamppb.Now(), OldestDueTime: timestamppb.New(time.Now().Add(-time.Hour))},
		{Name: "twx", Shards: 50},
	}}, nil
}

func (f *fake) ListMembers(context.Context, *amendsv1.ListMembersRequest) (*amendsv1.ListMembersResponse, error) {
	return &amendsv1.ListMembersResponse{Members: []*amendsv1.Member{{Name: "one", Self: true}, {Name: "two"}, {Name: "twx"}}}, nil
}

func (f *fake) DrainMember(_ context.Context, r *amendsv1.DrainMemberRequest) (*amendsv1.DrainMemberResponse, error) {
	return &amendsv1.DrainMemberResponse{}, f.act(r)
}

func (f *fake) UndrainMember(_ context.Context, r *amendsv1.UndrainMemberRequest) (*amendsv1.UndrainMemberResponse, error) {
	return &amendsv1.UndrainMemberResponse{}, f.act(r)
}

func (f *fake) ListParticipants(context.Context, *amendsv1.ListParticipantsRequest) (*amendsv1.ListParticipantsResponse, error) {
	return &amendsv1.ListParticipantsResponse{Participants: []*amendsv1.Participant{{Service: "accounts", Waiting: 7, Actions: []string{"accounts.debit"}}}}, nil
}

func (f *fake) WhoAmI(context.Context, *amendsv1.WhoAmIRequest) (*amendsv1.WhoAmIResponse, error) {
	return &amendsv1.WhoAmIResponse{Subject: "alice", Namespace: "shop", Roles: []amendsv1.Role{amendsv1.Role_ROLE_BREAK_GLASS}}, nil
}
