package sdk

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestEveryMethodIsDecided keeps the table complete: a new method of the
// coordinators has to be thought about.
func TestEveryMethodIsDecided(t *testing.T) {
	var all []string
	for _, file := range []protoreflect.FileDescriptor{
		amendsv1.File_amends_v1_transaction_proto, amendsv1.File_amends_v1_admin_proto, amendsv1.File_amends_v1_operator_proto,
		amendsv1.File_amends_v1_cluster_proto, amendsv1.File_amends_v1_participant_proto,
	} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				name := "/" + string(service.FullName()) + "/" + string(method.Name())
				all = append(all, name)
				how, ok := repeats[name]
				if !ok {
					t.Errorf("%s: repeats does not say whether it is safe to repeat", name)
				}
				if (method.IsStreamingClient() || method.IsStreamingServer()) && how != never {
					t.Errorf("%s is a stream: it cannot be repeated", name)
				}
				fields := method.Input().Fields()
				if how == byGID && fields.ByName("gid") == nil || how == byID && fields.ByName("request_id") == nil {
					t.Errorf("%s has nothing that makes it the same request", name)
				}
				if fields.ByName("request_id") != nil && how != byID {
					t.Errorf("%s has a request_id, and is repeated without one", name)
				}
			}
		}
	}
	for name := range repeats {
		if !slices.Contains(all, name) {
			t.Errorf("%s is no method", name)
		}
	}
}

func TestRepeatable(t *testing.T) {
	for _, test := range []struct {
		method string
		req    any
		want   bool
	}{
		{amendsv1.TransactionService_StartSaga_FullMethodName, &amendsv1.StartSagaRequest{Gid: "g"}, true},
		{amendsv1.TransactionService_StartSaga_FullMethodName, &amendsv1.StartSagaRequest{}, false},
		{amendsv1.TransactionService_CommitTcc_FullMethodName, &amendsv1.CommitTccRequest{Gid: "g"}, true},
		{amendsv1.OperatorService_Abort_FullMethodName, &amendsv1.AbortRequest{Gid: "g", RequestId: "r"}, true},
		{amendsv1.OperatorService_Abort_FullMethodName, &amendsv1.AbortRequest{Gid: "g"}, false},
		{amendsv1.OutboxService_ReplayDeadLetters_FullMethodName, &amendsv1.ReplayDeadLettersRequest{RequestId: "r"}, false},
		{"/of.Somebody/Else", nil, false},
	} {
		if got := repeatable(test.method, test.req); got != test.want {
			t.Errorf("%s %v: %t", test.method, test.req, got)
		}
	}
}

// TestNeverRepeated sends what is not safe to members that fail in each way.
func TestNeverRepeated(t *testing.T) {
	_, m := newFakeCluster(t, 2)
	c := dialFakes(t, m...)
	reached(t, c, 2)
	operator := amendsv1.NewOperatorServiceClient(c)
	arrived := func() int64 { return m[0].retried.Load() + m[1].retried.Load() }
	for _, m := range m {
		m.retry = func(context.Context) error { return ErrUnavailable.With("done, perhaps") }
	}
	_, err := operator.RetryNow(t.Context(), &amendsv1.RetryNowRequest{Gid: "g"})
	if !errors.Is(amendsv1.FromError(err), ErrUnavailable) || arrived() != 1 {
		t.Errorf("%v: arrived %d times", err, arrived())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = operator.RetryNow(ctx, &amendsv1.RetryNowRequest{Gid: "g", RequestId: "r"})
	if status.Code(err) != codes.DeadlineExceeded || arrived() < 3 {
		t.Errorf("%v: arrived %d times", err, arrived())
	}

	// One that dies with the request: its connection took it.
	for _, m := range m {
		m.retry = func(ctx context.Context) error {
			go m.kill()
			<-ctx.Done()
			return nil
		}
	}
	before := arrived()
	if _, err = operator.RetryNow(t.Context(), &amendsv1.RetryNowRequest{Gid: "g"}); status.Code(err) != codes.Unavailable || arrived() != before+1 {
		t.Errorf("%v: arrived %d times more", err, arrived()-before)
	}
}

// TestNotDelivered is a request that no connection took: it is repeated although
// it is not safe to be done twice.
func TestNotDelivered(t *testing.T) {
	_, m := newFakeCluster(t, 2)
	c := dialFakes(t, m...)
	reached(t, c, 2)
	m[0].kill()
	for range 4 {
		ready := c.now.Load().ready // as it was: nobody has noticed yet
		if _, err := amendsv1.NewOperatorServiceClient(c).RetryNow(t.Context(), &amendsv1.RetryNowRequest{Gid: "g"}); err != nil {
			t.Errorf("with %d members ready: %v", len(ready), err)
		}
	}
	if n := m[1].retried.Load(); n != 4 {
		t.Errorf("arrived %d times", n)
	}
}

// TestPace: RetryInfo is honoured, a full coordinator is not asked again, and
// deadlines hold.
func TestPace(t *testing.T) {
	_, m := newFakeCluster(t, 1)
	c := dialFakes(t, m...)
	var asked atomic.Int64
	var answer error
	m[0].start = func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		asked.Add(1)
		return nil, answer
	}
	ask := func(timeout time.Duration) (int64, error) {
		asked.Store(0)
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		_, err := amendsv1.NewTransactionServiceClient(c).StartSaga(ctx, &amendsv1.StartSagaRequest{Gid: "g"})
		return asked.Load(), err
	}
	answer = ErrUnavailable.WithRetryAfter(time.Hour)
	if n, err := ask(time.Minute); n != 1 || !errors.Is(amendsv1.FromError(err), ErrUnavailable) {
		t.Errorf("over RepeatFor: asked %d times, %v", n, err)
	}
	answer = ErrUnavailable.WithRetryAfter(20 * time.Second)
	if n, err := ask(200 * time.Millisecond); n != 1 || status.Code(err) != codes.DeadlineExceeded || !errors.Is(err, ErrUnavailable) {
		t.Errorf("over the deadline: asked %d times, %v", n, err)
	}
	answer = ErrOverloaded.WithRetryAfter(time.Millisecond)
	if n, err := ask(time.Minute); n != 1 || !errors.Is(amendsv1.FromError(err), ErrOverloaded) {
		t.Errorf("full: asked %d times, %v", n, err)
	}
}

// TestRepeatFor bounds a request that has no deadline, in virtual time.
func TestRepeatFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{cfg: DialConfig{RepeatFor: time.Minute}}
		c.now.Store(&view{replaced: make(chan struct{})})
		began := time.Now()
		err := c.Invoke(t.Context(), "/x/Y", nil, nil)
		if !errors.Is(err, ErrUnavailable) || time.Since(began) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
