package coordinator_test

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// BenchmarkSaga runs two-step sagas to their end with participants that do
// nothing: what a coordinator costs by itself. One iteration is one saga,
// started and waited for in one request by one of 64 clients over in-process
// gRPC.
func BenchmarkSaga(b *testing.B) {
	for _, bench := range []struct {
		name string
		open func(b *testing.B) store.Store
	}{
		{"memory", func(*testing.B) store.Store { return memstore.New(nil) }},
		{"sqlite", func(b *testing.B) store.Store {
			st, err := sqlstore.OpenSQLite(b.Context(), b.TempDir(), nil)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = st.Close() })
			return st
		}},
	} {
		b.Run(bench.name, func(b *testing.B) { benchSagas(b, bench.open(b)) })
	}
}

func benchSagas(b *testing.B, st store.Store) {
	c, err := coordinator.New(b.Context(), st, &coordinator.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	defer func() {
		stop()
		if err := g.Wait(); err != nil {
			b.Error(err)
		}
	}()
	attend(b, c)

	client := amendsv1.NewTransactionServiceClient(c.Conn())
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var clients errgroup.Group
	for range 64 {
		clients.Go(func() error {
			for left.Add(-1) >= 0 {
				if err := oneSaga(ctx, client); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := clients.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sagas/s")
}

func oneSaga(ctx context.Context, client amendsv1.TransactionServiceClient) error {
	ended, err := client.StartSaga(ctx, &amendsv1.StartSagaRequest{Name: "transfer", Steps: []*amendsv1.SagaStep{
		{Name: "debit", Action: "bench.debit", Payload: []byte(`{"account":"alice","cents":500}`)},
		{Name: "credit", Action: "bench.credit", Payload: []byte(`{"account":"bob","cents":500}`), After: []string{"debit"}},
	}, Wait: durationpb.New(time.Minute)})
	if err != nil {
		return err
	}
	if s := ended.GetTransaction().GetState(); s != amendsv1.State_STATE_COMMITTED {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// attend answers every call with OK, from one stream.
func attend(b *testing.B, c *coordinator.Coordinator) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	stream, err := amendsv1.NewParticipantServiceClient(c.Conn()).Attend(ctx)
	if err != nil {
		b.Fatal(err)
	}
	hello := &amendsv1.Hello{ProtocolVersion: 1, Service: "bench", Actions: []string{"bench.debit", "bench.credit"}, Capacity: 10_000}
	if err := stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello}}); err != nil {
		b.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				return // the benchmark is over
			}
			var out amendsv1.Outcomes
			for _, call := range resp.GetCalls().GetCalls() {
				out.Outcomes = append(out.Outcomes, &amendsv1.Outcome{Gid: call.GetGid(), Index: call.GetIndex(), Op: call.GetOp(),
					Attempt: call.GetAttempt(), Code: amendsv1.OutcomeCode_OUTCOME_CODE_OK})
			}
			if len(out.GetOutcomes()) > 0 {
				_ = stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: &out}}) // ends with Recv
			}
		}
	}()
}
