package sdk

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/outbox"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const patience = 10 * time.Second

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// fakeCoordinator answers by the functions that a test sets.
type fakeCoordinator struct {
	amendsv1.UnimplementedTransactionServiceServer
	amendsv1.UnimplementedParticipantServiceServer

	start  func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error)
	begin  func(context.Context, *amendsv1.BeginTccRequest) (*amendsv1.BeginTccResponse, error)
	try    func(context.Context, *amendsv1.TryBranchRequest) (*amendsv1.TryBranchResponse, error)
	commit func(context.Context, *amendsv1.CommitTccRequest) (*amendsv1.CommitTccResponse, error)
	abort  func(context.Context, *amendsv1.AbortTransactionRequest) (*amendsv1.AbortTransactionResponse, error)
	wait   func(context.Context, *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error)
	reject func(*amendsv1.Hello) error // nil: welcome
	talk   func(amendsv1.TransactionService_ConverseServer) error

	heartbeat time.Duration
	mute      bool // answers no ping
	streams   chan *fakeStream
}

func (f *fakeCoordinator) StartSaga(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
	return f.start(ctx, r)
}

func (f *fakeCoordinator) BeginTcc(ctx context.Context, r *amendsv1.BeginTccRequest) (*amendsv1.BeginTccResponse, error) {
	return f.begin(ctx, r)
}

func (f *fakeCoordinator) TryBranch(ctx context.Context, r *amendsv1.TryBranchRequest) (*amendsv1.TryBranchResponse, error) {
	return f.try(ctx, r)
}

func (f *fakeCoordinator) CommitTcc(ctx context.Context, r *amendsv1.CommitTccRequest) (*amendsv1.CommitTccResponse, error) {
	return f.commit(ctx, r)
}

func (f *fakeCoordinator) AbortTransaction(
	ctx context.Context, r *amendsv1.AbortTransactionRequest,
) (*amendsv1.AbortTransactionResponse, error) {
	return f.abort(ctx, r)
}

func (f *fakeCoordinator) WaitTransaction(
	ctx context.Context, r *amendsv1.WaitTransactionRequest,
) (*amendsv1.WaitTransactionResponse, error) {
	return f.wait(ctx, r)
}

func (f *fakeCoordinator) Converse(g amendsv1.TransactionService_ConverseServer) error {
	if f.talk == nil {
		return f.UnimplementedTransactionServiceServer.Converse(g)
	}
	return f.talk(g)
}

// fakeStream is one attended stream, seen from the coordinator.
type fakeStream struct {
	amendsv1.ParticipantService_AttendServer
	hello    *amendsv1.Hello
	outcomes chan *amendsv1.Outcome
	drained  chan struct{}
	closed   chan struct{} // the participant closed its side
	hangUp   chan struct{} // the test ends the stream
}

func (f *fakeCoordinator) Attend(g amendsv1.ParticipantService_AttendServer) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if f.reject != nil {
		if err := f.reject(first.GetHello()); err != nil {
			return err
		}
	}
	s := &fakeStream{
		ParticipantService_AttendServer: g, hello: first.GetHello(), outcomes: make(chan *amendsv1.Outcome, 1000),
		drained: make(chan struct{}), closed: make(chan struct{}), hangUp: make(chan struct{}),
	}
	welcome := &amendsv1.Welcome{Coordinator: "fake", Heartbeat: durationpb.New(f.heartbeat)}
	if err := g.Send(&amendsv1.AttendResponse{Message: &amendsv1.AttendResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	over := make(chan error, 1)
	go func() { over <- s.listen(f.mute) }()
	f.streams <- s
	select {
	case err := <-over:
		return err
	case <-s.hangUp:
		return amendsv1.ErrUnavailable.With("hung up")
	}
}

func (s *fakeStream) listen(mute bool) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			close(s.closed)
			return nil
		}
		if err != nil {
			return err
		}
		for _, out := range m.GetOutcomes().GetOutcomes() {
			s.outcomes <- out
		}
		if m.GetDrain() != nil {
			close(s.drained)
		}
		if m.GetPing() != nil && !mute {
			pong := &amendsv1.AttendResponse_Pong{Pong: &amendsv1.Pong{}}
			if err := s.Send(&amendsv1.AttendResponse{Message: pong}); err != nil {
				return err
			}
		}
	}
}

func (s *fakeStream) call(t *testing.T, calls ...*amendsv1.Call) {
	t.Helper()
	m := &amendsv1.AttendResponse_Calls{Calls: &amendsv1.Calls{Calls: calls}}
	if err := s.Send(&amendsv1.AttendResponse{Message: m}); err != nil {
		t.Fatal(err)
	}
}

// serve starts the fake and returns a connection to it.
func serve(t *testing.T, f *fakeCoordinator) *grpc.ClientConn {
	t.Helper()
	if f.heartbeat == 0 {
		f.heartbeat = time.Second
	}
	f.streams = make(chan *fakeStream, 16)
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	amendsv1.RegisterTransactionServiceServer(srv, f)
	amendsv1.RegisterParticipantServiceServer(srv, f)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		srv.Stop()
		<-served
	})
	return conn
}

// receive waits for one value.
func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %s for %s", patience, what)
		panic("unreachable")
	}
}

// impatient is an option of database: it waits 10 ms for another writer.
const impatient = "impatient"

// database opens a SQLite file with the guard's tables and one of effects.
func database(t *testing.T, options ...string) *sql.DB {
	t.Helper()
	dsn := outbox.SQLiteDSN(filepath.Join(t.TempDir(), "service.db")) + "&_pragma=synchronous(OFF)" // no power cuts here
	for _, o := range options {
		if o == impatient {
			dsn = strings.Replace(dsn, "busy_timeout%2810000%29", "busy_timeout%2810%29", 1)
			continue
		}
		dsn += "&" + o
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE effects (id INTEGER PRIMARY KEY, what TEXT NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	return db
}

// effect is what test handlers do.
func effect(ctx context.Context, tx *sql.Tx, what string) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO effects (what) VALUES (?)", what)
	return err
}

// effects returns what stands, in order.
func effects(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT what FROM effects ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
