package forward_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestCarries: what comes with a request, and with its answer, arrives.
func TestCarries(t *testing.T) {
	asked, owner := pair(t, 0)
	var seen metadata.MD
	var deadline time.Time
	owner.start = func(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		seen, _ = metadata.FromIncomingContext(ctx)
		deadline, _ = ctx.Deadline()
		if r.GetGid() == "no" {
			return nil, amendsv1.ErrOverloaded.With("full").WithMetadata("limit", "7").WithRetryAfter(3 * time.Second)
		}
		return started(r.GetSteps()[0].GetAction() + string(r.GetSteps()[0].GetPayload()[:1])), nil
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-a", "x-mine", "1", "x-mine", "2", "authorization", "Bearer secret")
	large := strings.Repeat("x", 12<<20)
	resp, err := asked.ask(ctx, &amendsv1.StartSagaRequest{Gid: "g", Steps: []*amendsv1.SagaStep{{Action: "a.b", Payload: []byte(large)}}})
	if err != nil || resp.GetTransaction().GetGid() != "a.bx" {
		t.Fatalf("%v, %v", resp, err)
	}
	if strings.Join(seen["traceparent"], " ") != "00-a" || strings.Join(seen["x-mine"], " ") != "1 2" || len(seen["authorization"]) != 0 {
		t.Errorf("the owner saw %v", seen)
	}
	if left := time.Until(deadline); deadline.IsZero() || left > patience {
		t.Errorf("the owner saw a deadline in %v", left)
	}
	_, err = asked.ask(t.Context(), &amendsv1.StartSagaRequest{Gid: "no"})
	st := status.Convert(err)
	if st.Code() != codes.ResourceExhausted || st.Message() != "full" || len(st.Details()) != 2 {
		t.Fatalf("%v", err)
	}
	info, retry := st.Details()[0].(*errdetails.ErrorInfo), st.Details()[1].(*errdetails.RetryInfo)
	if info.GetReason() != "OVERLOADED" || info.GetMetadata()["limit"] != "7" || retry.GetRetryDelay().AsDuration() != 3*time.Second {
		t.Errorf("%v %v", info, retry)
	}
	if s := asked.forward.Stats(); s.Sent != 2 || s.Repeated != 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// TestCancelled: a caller who goes away is gone at the owner, too.
func TestCancelled(t *testing.T) {
	asked, owner := pair(t, 0)
	arrived, gone := make(chan struct{}), make(chan struct{})
	owner.start = func(ctx context.Context, _ *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		close(arrived)
		<-ctx.Done()
		close(gone)
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error {
		_, err := asked.ask(ctx, &amendsv1.StartSagaRequest{Gid: "g"})
		if status.Code(err) != codes.Canceled {
			return err
		}
		return nil
	})
	<-arrived
	cancel()
	<-gone
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestOwnerLost: while the owner is not reached, hangs, is not the owner, or
// nobody is, a request waits for the next one, and is answered by it.
func TestOwnerLost(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, asked *node){
		"nobody":             func(_ *testing.T, asked *node) { asked.own(store.Member{}) },
		"dead":               func(_ *testing.T, asked *node) { asked.own(store.Member{Name: "dead", Address: "127.0.0.1:1"}) },
		"without an address": func(_ *testing.T, asked *node) { asked.own(store.Member{Name: "old"}) },
		"mistaken": func(t *testing.T, asked *node) {
			other := newNode(t, "other", 0)
			other.own(store.Member{Name: "somebody else", Address: "127.0.0.1:1"})
			other.start = func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
				return nil, amendsv1.ErrNotOwner
			}
			asked.own(other.member)
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked, owner := pair(t, patience)
			owner.start = func(_ context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
				return started(r.GetGid()), nil
			}
			lose(t, asked)
			rounds := 0
			asked.refresh = func() {
				if rounds++; rounds == 3 {
					asked.own(owner.member)
				}
			}
			resp, err := asked.ask(t.Context(), &amendsv1.StartSagaRequest{Gid: "g"})
			if err != nil || resp.GetTransaction().GetGid() != "g" {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
}

// TestOwnerHangs: an owner that never answers is not waited for once there is
// another one.
func TestOwnerHangs(t *testing.T) {
	asked, owner := pair(t, patience)
	hanging := newNode(t, "hanging", 0)
	hanging.own(hanging.member)
	hanging.start = func(ctx context.Context, _ *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		asked.own(owner.member) // while it hangs
		<-ctx.Done()
		return nil, ctx.Err()
	}
	owner.start = func(_ context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		return started(r.GetGid()), nil
	}
	asked.own(hanging.member)
	if _, err := asked.ask(t.Context(), &amendsv1.StartSagaRequest{Gid: "g"}); err != nil {
		t.Error(err)
	}
}

// TestOneHop: two members that each take the other for the owner do not send a
// request to and fro.
func TestOneHop(t *testing.T) {
	a, b := newNode(t, "a", 50*time.Millisecond), newNode(t, "b", 50*time.Millisecond)
	a.own(b.member)
	b.own(a.member)
	refuse := func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		return nil, amendsv1.ErrNotOwner
	}
	a.start, b.start = refuse, refuse
	_, err := a.ask(t.Context(), &amendsv1.StartSagaRequest{Gid: "g"})
	if !errors.Is(amendsv1.FromError(err), amendsv1.ErrNotOwner) {
		t.Errorf("%v, want ErrNotOwner", err)
	}
	if s := a.forward.Stats(); s.Failed != 1 || s.Sent == 0 || b.forward.Stats().Sent != 0 {
		t.Errorf("a: %+v, b: %+v", s, b.forward.Stats())
	}
}

// TestGivesNames: what is repeated has a name by which it is known again.
func TestGivesNames(t *testing.T) {
	asked, owner := pair(t, patience)
	var gids, ids []string
	owner.start = func(_ context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		if gids = append(gids, r.GetGid()); len(gids) == 1 {
			return nil, amendsv1.ErrNotOwner
		}
		return started(r.GetGid()), nil
	}
	owner.pause = func(r *amendsv1.PauseRequest) error {
		if ids = append(ids, r.GetRequestId()); len(ids) == 1 {
			return amendsv1.ErrNotOwner
		}
		return nil
	}
	if _, err := asked.ask(t.Context(), &amendsv1.StartSagaRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := amendsv1.NewOperatorServiceClient(asked.conn).Pause(t.Context(), &amendsv1.PauseRequest{Gid: "g"}); err != nil {
		t.Fatal(err)
	}
	for _, got := range [][]string{gids, ids} {
		if len(got) != 2 || got[0] == "" || got[0] != got[1] {
			t.Errorf("sent under the names %q, want the same one twice", got)
		}
	}
}

// TestWaitFindsTheEnd: a wait does not fail with its owner: what has ended is in
// the store. It lasts no longer than was asked.
func TestWaitFindsTheEnd(t *testing.T) {
	asked, owner := pair(t, 0)
	asked.own(store.Member{Name: "dead", Address: "127.0.0.1:1"})
	state, looked := amendsv1.State_STATE_RUNNING, 0
	asked.wait = func(_ context.Context, r *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		if looked++; looked == 2 {
			state = amendsv1.State_STATE_COMMITTED
		}
		if r.GetMaxWait().AsDuration() > time.Second {
			t.Errorf("waits in the store for %v", r.GetMaxWait().AsDuration())
		}
		return &amendsv1.WaitTransactionResponse{Transaction: &amendsv1.Transaction{State: state}}, nil
	}
	client := amendsv1.NewTransactionServiceClient(asked.conn)
	resp, err := client.WaitTransaction(t.Context(), &amendsv1.WaitTransactionRequest{Gid: "g"})
	if err != nil || resp.GetTransaction().GetState() != amendsv1.State_STATE_COMMITTED || looked != 2 {
		t.Errorf("%v, %v after %d looks", resp, err, looked)
	}

	// A member that stops sends its callers to another one.
	waits := make(chan struct{})
	owner.wait = func(ctx context.Context, _ *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		close(waits)
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	asked.own(owner.member)
	var g errgroup.Group
	g.Go(func() error {
		_, err := client.WaitTransaction(t.Context(), &amendsv1.WaitTransactionRequest{Gid: "g"})
		return err
	})
	<-waits
	asked.forward.End()
	if err := g.Wait(); !errors.Is(amendsv1.FromError(err), amendsv1.ErrNotOwner) || status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want ErrNotOwner", err)
	}
}

// TestStartWaits: a start that waits for the end of its saga goes on at the next
// owner for as long as is left, and ends when the member that was asked stops.
func TestStartWaits(t *testing.T) {
	asked, owner := pair(t, patience)
	first := newNode(t, "first", 0)
	first.own(first.member)
	first.start = func(ctx context.Context, _ *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		asked.own(owner.member) // while it waits
		<-ctx.Done()
		return nil, ctx.Err()
	}
	waits := make(chan *amendsv1.StartSagaRequest, 1)
	owner.start = func(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		waits <- r
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	asked.own(first.member)
	var g errgroup.Group
	g.Go(func() error {
		_, err := asked.ask(t.Context(), &amendsv1.StartSagaRequest{Gid: "g", Name: "n", Wait: durationpb.New(patience)})
		return err
	})
	r := <-waits
	if left := r.GetWait().AsDuration(); left >= patience || left <= 0 || r.GetGid() != "g" || r.GetName() != "n" {
		t.Errorf("the next owner was asked %v", r)
	}
	asked.forward.End()
	if err := g.Wait(); !errors.Is(amendsv1.FromError(err), amendsv1.ErrNotOwner) {
		t.Errorf("%v, want ErrNotOwner", err)
	}
}

// TestWatchGoesOn: a watch that loses its owner goes on where it was.
func TestWatchGoesOn(t *testing.T) {
	asked, owner := pair(t, 0)
	send := func(s grpc.ServerStreamingServer[amendsv1.WatchTransactionResponse], from, to int64) error {
		for seq := from; seq <= to; seq++ {
			if err := s.Send(&amendsv1.WatchTransactionResponse{Event: &amendsv1.Event{Seq: seq}}); err != nil {
				return err
			}
		}
		return nil
	}
	owner.handlers.watch = func(r *amendsv1.WatchTransactionRequest, s grpc.ServerStreamingServer[amendsv1.WatchTransactionResponse]) error {
		if err := send(s, r.GetAfterSeq()+1, 3); err != nil {
			return err
		}
		return amendsv1.ErrNotOwner
	}
	asked.handlers.watch = func(r *amendsv1.WatchTransactionRequest, s grpc.ServerStreamingServer[amendsv1.WatchTransactionResponse]) error {
		return send(s, r.GetAfterSeq()+1, 5)
	}
	stream, err := amendsv1.NewAdminServiceClient(asked.conn).WatchTransaction(t.Context(), &amendsv1.WatchTransactionRequest{Gid: "g", AfterSeq: 1})
	if err != nil {
		t.Fatal(err)
	}
	for want := int64(2); want <= 5; want++ {
		if resp, err := stream.Recv(); err != nil || resp.GetEvent().GetSeq() != want {
			t.Fatalf("%v, %v, want event %d", resp, err, want)
		}
	}
}
