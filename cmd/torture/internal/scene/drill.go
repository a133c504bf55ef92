package scene

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Services of a drill: one answers at once, the other never.
const (
	drillService = "drill"
	hangService  = "hang"
)

// drill is a participant without a database, so that a coordinator is measured
// and nothing else.
type drill struct {
	service string
	answers bool

	mu    sync.Mutex
	known map[string]bool // gids that were called
	first time.Time
	last  time.Time // when the last new gid was called
}

func newDrill(service string, answers bool) *drill {
	return &drill{service: service, answers: answers, known: map[string]bool{}}
}

func (d *drill) times() (first, last time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.first, d.last
}

func (d *drill) resumed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.known)
}

func (d *drill) note(calls []*amendsv1.Call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, c := range calls {
		if d.known[c.GetGid()] {
			continue
		}
		if d.known[c.GetGid()] = true; d.first.IsZero() {
			d.first = now
		}
		d.last = now
	}
}

const drillCapacity = 10_000

// run attends until ctx ends, whatever becomes of the coordinator.
func (d *drill) run(ctx context.Context, conn grpc.ClientConnInterface) error {
	for ctx.Err() == nil {
		_ = d.attend(ctx, conn) // the coordinator is away: it comes back
		sleep(ctx, 20*time.Millisecond)
	}
	return nil
}

// attend is one stream.
func (d *drill) attend(ctx context.Context, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := amendsv1.NewParticipantServiceClient(conn).Attend(ctx)
	if err != nil {
		return err
	}
	hello := &amendsv1.Hello{
		ProtocolVersion: 1, Service: d.service, Instance: "torture", Actions: []string{d.service + ".one", d.service + ".two"},
		Capacity: drillCapacity,
	}
	if err := stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello}}); err != nil {
		return err
	}
	answers := make(chan *amendsv1.AttendRequest, 64)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer cancel()
		for {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			d.take(ctx, m.GetCalls().GetCalls(), answers)
		}
	})
	g.Go(func() error {
		beat := time.NewTicker(time.Second)
		defer beat.Stop()
		for {
			m := &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Ping{Ping: &amendsv1.Ping{}}}
			select {
			case m = <-answers:
			case <-beat.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

func (d *drill) take(ctx context.Context, calls []*amendsv1.Call, answers chan<- *amendsv1.AttendRequest) {
	d.note(calls)
	if !d.answers || len(calls) == 0 {
		return
	}
	var out amendsv1.Outcomes
	for _, c := range calls {
		out.Outcomes = append(out.Outcomes, &amendsv1.Outcome{
			Gid: c.GetGid(), Index: c.GetIndex(), Op: c.GetOp(), Attempt: c.GetAttempt(), Code: amendsv1.OutcomeCode_OUTCOME_CODE_OK,
		})
	}
	select {
	case answers <- &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: &out}}:
	case <-ctx.Done():
	}
}

const starters = 64

// startMany starts transactions of two steps at each service, which is away.
func startMany(ctx context.Context, conn grpc.ClientConnInterface, drills, hangs int) error {
	client := amendsv1.NewTransactionServiceClient(conn)
	g, ctx := errgroup.WithContext(ctx)
	for s := range starters {
		g.Go(func() error {
			for n := s; n < drills+hangs; n += starters {
				service := drillService
				if n >= drills {
					service = hangService
				}
				if err := startOne(ctx, client, service, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func startOne(ctx context.Context, client amendsv1.TransactionServiceClient, service string, n int) error {
	payload := []byte(`{"account":"alice","cents":500}`)
	req := &amendsv1.StartSagaRequest{Gid: fmt.Sprintf("%s-%d", service, n), Name: service, Steps: []*amendsv1.SagaStep{
		{Name: "one", Action: service + ".one", Payload: payload},
		{Name: "two", Action: service + ".two", Payload: payload, After: []string{"one"}},
	}}
	for {
		_, err := client.StartSaga(ctx, req)
		if code := status.Code(err); code != codes.Unavailable && code != codes.ResourceExhausted {
			return err
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}
