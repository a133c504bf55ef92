package bench

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

const (
	// capacity is how many calls a participant takes at once.
	capacity = 256

	createAccounts = `CREATE TABLE accounts (id BIGINT PRIMARY KEY, cents BIGINT NOT NULL)`
	openAccount    = `INSERT INTO accounts (id, cents) VALUES (?, 0)`
	changeAccount  = `UPDATE accounts SET cents = cents + ? WHERE id = ?`
)

var errRefused = errors.New("refused, as the share of refusals says")

// attending is a participant on connections, each of which is to a coordinator.
type attending func(ctx context.Context, conns ...grpc.ClientConnInterface) error

// services runs the coordinators and the participant, each with connections of its
// own, and returns a client of the coordinators that has seen a saga to its end.
func (r *rig) services(ctx context.Context) (*sdk.Client, error) {
	addrs, err := r.coordinators(ctx)
	if err != nil {
		return nil, err
	}
	attend, err := r.participant(ctx)
	if err != nil {
		return nil, err
	}
	var theirs []grpc.ClientConnInterface
	for range max(1, r.cfg.Scale.Streams) {
		for _, addr := range addrs {
			conn, err := r.dial(addr)
			if err != nil {
				return nil, err
			}
			theirs = append(theirs, conn)
		}
	}
	r.run(ctx, func(ctx context.Context) error { return attend(ctx, theirs...) })
	ours, err := r.connect(addrs)
	if err != nil {
		return nil, err
	}
	client := sdk.NewClient(ours, &sdk.ClientConfig{Logger: r.cfg.Logger})
	err = sdk.RunSaga(ctx, client, sagaOf(r.cfg), input{}, nil)
	r.ready = time.Since(r.started)
	return client, err
}

// participant returns what attends to a coordinator: a service with a database
// and the guard, or one that says yes to everything.
func (r *rig) participant(ctx context.Context) (attending, error) {
	if !r.cfg.Guard {
		return attendTrivially, nil
	}
	db, dialect, err := r.database(ctx)
	if err != nil {
		return nil, err
	}
	if err := openAccounts(ctx, db, r.cfg.Clients*r.cfg.Steps); err != nil {
		return nil, err
	}
	p := sdk.NewParticipant(service, db, dialect, &sdk.ParticipantConfig{Concurrency: capacity, SkipMigrate: true, Logger: r.cfg.Logger})
	change := func(ctx context.Context, tx *sql.Tx, e entry, cents int) error {
		if e.Refuse {
			return sdk.Refuse(errRefused)
		}
		_, err := tx.ExecContext(ctx, changeAccount, cents, e.Account)
		return err
	}
	sdk.HandleSaga(p, move,
		func(ctx context.Context, tx *sql.Tx, e entry) (done, error) { return done{}, change(ctx, tx, e, 1) },
		func(ctx context.Context, tx *sql.Tx, e entry, _ done) error {
			e.Refuse = false
			return change(ctx, tx, e, -1)
		})
	none := func(context.Context, *sql.Tx, entry, done) error { return nil }
	sdk.HandleTCC(p, reserve,
		func(ctx context.Context, tx *sql.Tx, e entry) (done, error) { return done{}, change(ctx, tx, e, 1) }, none,
		func(ctx context.Context, tx *sql.Tx, e entry, _ done) error {
			e.Refuse = false
			return change(ctx, tx, e, -1)
		})
	return p.Run, nil
}

// openAccounts makes an account for each step of each client: they wait for the
// coordinator, not for each other's rows.
func openAccounts(ctx context.Context, db *sql.DB, n int) error {
	if _, err := db.ExecContext(ctx, createAccounts); err != nil {
		return err
	}
	for i := range n {
		if _, err := db.ExecContext(ctx, openAccount, i); err != nil {
			return err
		}
	}
	return nil
}

// attendTrivially answers every call at once, without a database: what remains
// is what a coordinator costs.
func attendTrivially(ctx context.Context, conns ...grpc.ClientConnInterface) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, conn := range conns {
		g.Go(func() error { return attendOne(ctx, conn) })
	}
	return g.Wait()
}

func attendOne(ctx context.Context, conn grpc.ClientConnInterface) error {
	stream, err := amendsv1.NewParticipantServiceClient(conn).Attend(ctx)
	if err != nil {
		return err
	}
	hello := &amendsv1.Hello{ProtocolVersion: 1, Service: service, Capacity: capacity, Actions: []string{move.Name(), reserve.Name()}}
	if err := stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{Hello: hello}}); err != nil {
		return err
	}
	outcomes := make(chan *amendsv1.Outcomes, capacity)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(outcomes)
		for {
			resp, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("the coordinator ended the stream: %w", err)
			}
			if batch := answers(resp.GetCalls().GetCalls()); len(batch.GetOutcomes()) > 0 {
				select {
				case outcomes <- batch:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
		}
	})
	g.Go(func() error {
		for batch := range outcomes {
			m := &amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{Outcomes: batch}}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil // the measurement is over
}

func answers(calls []*amendsv1.Call) *amendsv1.Outcomes {
	batch := &amendsv1.Outcomes{}
	for _, call := range calls {
		out := &amendsv1.Outcome{Gid: call.GetGid(), Index: call.GetIndex(), Op: call.GetOp(), Attempt: call.GetAttempt(),
			Code: amendsv1.OutcomeCode_OUTCOME_CODE_OK, Reply: []byte(`{}`),
			Recorded: true} // as a guard's would be: the same call always gets this answer
		var e entry
		asked := call.GetOp() == amendsv1.Op_OP_DO || call.GetOp() == amendsv1.Op_OP_TRY
		if asked && json.Unmarshal(call.GetPayload(), &e) == nil && e.Refuse {
			out.Code, out.Message, out.Reply, out.Recorded = amendsv1.OutcomeCode_OUTCOME_CODE_REFUSED, errRefused.Error(), nil, false
		}
		batch.Outcomes = append(batch.Outcomes, out)
	}
	return batch
}
