package console_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestRealCoordinator: a saga whose next try is an hour away is found by its
// label, is paused and resumed by hand, and is seen to commit when it is retried.
func TestRealCoordinator(t *testing.T) {
	t.Parallel() // each in a browser of its own; most of the time it waits
	in := browser(t)
	conn, trusted := startCoordinator(t)
	h, err := console.New(conn, &console.Config{Name: "real"})
	if err != nil {
		t.Fatal(err)
	}
	var well atomic.Bool
	well.Store(true)
	attend(t, trusted, "inventory", &well)
	var paymentsWell atomic.Bool
	attend(t, trusted, "payments", &paymentsWell)
	const gid = "checkout/17:a"
	_, err = amendsv1.NewTransactionServiceClient(trusted).StartSaga(t.Context(), &amendsv1.StartSagaRequest{
		Gid: gid, Name: "checkout", Labels: map[string]string{"order_id": "A-17"}, Steps: []*amendsv1.SagaStep{
			{Name: "reserve", Action: "inventory.reserve", Payload: []byte(`{"sku":"B-77"}`)},
			{Name: "charge", Action: "payments.charge", Payload: []byte(`{"cents":500}`), After: []string{"reserve"},
				Retry: &amendsv1.RetryPolicy{Initial: durationpb.New(time.Hour), Cap: durationpb.New(time.Hour), Jitter: -1}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	b := newTab(in, t, server)

	b.visit("/")
	b.sees(".figures", gid) // the oldest unfinished
	b.sees(".verdict", "1 stalled")
	b.sees("main", "payments.charge")
	b.visit("/transactions?label=order_id%3DA-17")
	b.sees("tbody", "waits for payments")
	b.click("tbody a[data-row]")
	b.sees(".lane:nth-child(1)", "Done")
	b.sees(".cause", "the bank does not answer")
	b.sees(".cause", "Next try in 59m")
	b.dialog(`.verbs [data-verb="VERB_PAUSE"]`)
	b.enter("#field-reason", "wait for payments")
	b.click("dialog button.primary")
	b.sees(".marks", "Paused")
	b.sees(".deeds", "wait for payments")
	b.snap("paused")
	b.dialog(`.verbs [data-verb="VERB_RESUME"]`)
	b.enter("#field-reason", "they are at it")
	b.click("dialog button.primary")
	b.sees(".deeds", "they are at it")
	b.dialogCloses()
	paymentsWell.Store(true)
	b.dialog(`.verbs [data-verb="VERB_RETRY_NOW"]`)
	b.enter("#field-reason", "payments is back")
	b.click("dialog button.primary")
	b.sees(".marks", "Committed")
	b.sees(".link-state", "ended")
	b.openDetails()
	b.sees(".payloads", "B-77")
	b.snap("committed")
}

// startCoordinator runs one in memory, and returns the connection that asks for
// credentials and the one that does not.
func startCoordinator(t *testing.T) (conn, trusted grpc.ClientConnInterface) {
	t.Helper()
	c, err := coordinator.New(t.Context(), memstore.New(nil), &coordinator.Config{
		StallAfter: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return c.GuardedConn(), c.Conn()
}

// attend answers every call of a service until the test ends: with OK while it
// is well, else it does not know.
func attend(t *testing.T, conn grpc.ClientConnInterface, service string, well *atomic.Bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := amendsv1.NewParticipantServiceClient(conn).Attend(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hello := &amendsv1.Hello{ProtocolVersion: 1, Service: service, Actions: []string{service + ".reserve", service + ".charge"}, Capacity: 10}
	if err := stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	var sending sync.Mutex
	send := func(m *amendsv1.AttendRequest) {
		sending.Lock()
		defer sending.Unlock()
		_ = stream.Send(m) // ends with Recv
	}
	go func() { // a coordinator parts with those who say nothing, and a browser may take its time
		for ctx.Err() == nil {
			send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Ping{Ping: &amendsv1.Ping{}}})
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}()
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				return // the test is over
			}
			for _, call := range resp.GetCalls().GetCalls() {
				out := &amendsv1.Outcome{Gid: call.GetGid(), Index: call.GetIndex(), Op: call.GetOp(), Attempt: call.GetAttempt()}
				out.Code = amendsv1.OutcomeCode_OUTCOME_CODE_OK
				if !well.Load() {
					out.Code, out.Message = amendsv1.OutcomeCode_OUTCOME_CODE_UNKNOWN, "the bank does not answer"
				}
				outcomes := &amendsv1.Outcomes{Outcomes: []*amendsv1.Outcome{out}}
				send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: outcomes}})
			}
		}
	}()
}
