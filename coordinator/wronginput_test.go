package coordinator_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/tcc"
)

var (
	put  = saga.NewAction[string, string]("shelf.put")
	none = saga.NewAction[string, string]("shelf.vanish") // nobody offers it
	hold = tcc.NewAction[string, string]("shelf.hold")

	putOne = saga.Define("put-one", func(b *saga.Builder, in string) { b.Step("put", put.With(in)) })
)

var quiet = slog.New(slog.DiscardHandler)

// up is a coordinator with one participant, over which the tests below send
// what is wrong.
func up(t *testing.T, cfg *coordinator.Config) *coordinator.Coordinator {
	t.Helper()
	cfg.Logger = quiet
	c, err := coordinator.New(t.Context(), memstore.New(nil), cfg)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "shelf.db")))
	if err != nil {
		t.Fatal(err)
	}
	p := sdk.NewParticipant("shelf", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleSaga(p, put,
		func(_ context.Context, _ *sql.Tx, s string) (string, error) { return s, nil },
		func(context.Context, *sql.Tx, string, string) error { return nil })
	sdk.HandleTCC(p, hold,
		func(_ context.Context, _ *sql.Tx, s string) (string, error) { return s, nil },
		func(context.Context, *sql.Tx, string, string) error { return nil },
		func(context.Context, *sql.Tx, string, string) error { return nil })
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return p.Run(ctx, c.Conn()) })
	t.Cleanup(func() {
		stop()
		if err := errors.Join(g.Wait(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := startOne(t.Context(), sdk.NewClient(c.Conn(), nil), putOne, "warm-up", nil); err != nil {
		t.Fatal(err) // the participant is connected from here on
	}
	return c
}

func startOne[In any](ctx context.Context, client *sdk.Client, s saga.Saga[In], in In, cfg *sdk.StartConfig) error {
	run, err := sdk.Start(ctx, client, s, in, cfg)
	if err != nil {
		return err
	}
	return run.Wait(ctx)
}

// TestWrongInput is the table of what people do wrong and what they are told:
// an error that errors.Is finds, whose text names the thing and the fix.
func TestWrongInput(t *testing.T) {
	c := up(t, &coordinator.Config{})
	client := sdk.NewClient(c.Conn(), &sdk.ClientConfig{Logger: quiet})
	admin := amendsv1.NewAdminServiceClient(c.Conn())
	start := func(s saga.Saga[string], in string, cfg *sdk.StartConfig) error {
		return startOne(t.Context(), client, s, in, cfg)
	}
	define := func(fn func(b *saga.Builder)) saga.Saga[string] {
		return saga.Define("wrong", func(b *saga.Builder, _ string) { fn(b) })
	}
	for _, c := range []struct {
		name string
		do   func() error
		is   error
		says []string
	}{
		{"cycle", func() error {
			return start(define(func(b *saga.Builder) {
				b.Step("a", put.With("x")).After("b")
				b.Step("b", put.With("x")).After("a")
			}), "", nil)
		}, sdk.ErrInvalidDefinition, []string{`"a"`, `"b"`, "cycle"}},
		{"cycle on the wire", func() error {
			_, err := amendsv1.NewTransactionServiceClient(c.Conn()).StartSaga(t.Context(), &amendsv1.StartSagaRequest{
				Name:  "wrong",
				Steps: []*amendsv1.SagaStep{{Name: "a", Action: "shelf.put", After: []string{"b"}}, {Name: "b", Action: "shelf.put", After: []string{"a"}}},
			})
			return amendsv1.FromError(err)
		}, sdk.ErrInvalidDefinition, []string{`"a"`, `"b"`}},
		{"no steps", func() error { return start(define(func(*saga.Builder) {}), "", nil) },
			sdk.ErrInvalidDefinition, []string{"at least one step"}},
		{"duplicate names", func() error {
			return start(define(func(b *saga.Builder) {
				b.Step("a", put.With("x"))
				b.Step("a", put.With("x"))
			}), "", nil)
		}, sdk.ErrInvalidDefinition, []string{`"a"`}},
		{"unknown action", func() error {
			return start(define(func(b *saga.Builder) { b.Step("a", none.With("x")) }), "", nil)
		}, sdk.ErrUnknownAction, []string{"shelf.vanish", "shelf"}},
		{"payload over the limit", func() error { return start(putOne, strings.Repeat("x", 1<<20), nil) },
			sdk.ErrTooLarge, []string{"put", "1048576"}},
		{"gid with a space", func() error { return start(putOne, "", &sdk.StartConfig{GID: "a b"}) },
			sdk.ErrInvalidGID, []string{`"a b"`, "space"}},
		{"gid too long", func() error { return start(putOne, "", &sdk.StartConfig{GID: strings.Repeat("g", 129)}) },
			sdk.ErrInvalidGID, []string{"129", "128"}},
		{"gid with other content", func() error {
			return errors.Join(
				start(putOne, "one", &sdk.StartConfig{GID: "same"}),
				start(putOne, "two", &sdk.StartConfig{GID: "same"}))
		}, sdk.ErrGIDConflict, []string{`"same"`, "other content"}},
		{"commit after the deadline", func() error {
			return sdk.RunTCC(t.Context(), client, "slow", func(ctx context.Context, tx *sdk.TCC) error {
				if _, err := sdk.Try(ctx, tx, hold, "x"); err != nil {
					return err
				}
				<-ctx.Done() // the transaction's timeout
				return nil
			}, &sdk.TCCConfig{Timeout: 300 * time.Millisecond})
		}, sdk.ErrRolledBack, []string{"DEADLINE_EXCEEDED"}},
		{"try after the decision", func() error {
			var late *sdk.TCC
			err := sdk.RunTCC(t.Context(), client, "done", func(_ context.Context, tx *sdk.TCC) error {
				late = tx
				return nil
			}, nil)
			if err != nil {
				return err
			}
			_, err = sdk.Try(t.Context(), late, hold, "x")
			return err
		}, sdk.ErrDecided, []string{"has returned"}},
		{"try after the decision on the wire", func() error {
			wire := amendsv1.NewTransactionServiceClient(c.Conn())
			_, err := wire.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Gid: "decided", Name: "decided"})
			if err != nil {
				return err
			}
			if _, err := wire.CommitTcc(t.Context(), &amendsv1.CommitTccRequest{Gid: "decided"}); err != nil {
				return err
			}
			_, err = wire.TryBranch(t.Context(), &amendsv1.TryBranchRequest{Gid: "decided", Branch: "b", Action: "shelf.hold"})
			return amendsv1.FromError(err)
		}, sdk.ErrDecided, []string{`"decided"`, "COMMITTED"}},
		{"cancelled context", func() error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := sdk.Start(ctx, client, putOne, "x", nil)
			return err
		}, context.Canceled, nil},
		{"wait for nothing", func() error { return client.Run("never-started").Wait(t.Context()) },
			sdk.ErrNotFound, []string{"never-started"}},
		{"corrupt page token", func() error {
			_, err := admin.ListTransactions(t.Context(), &amendsv1.ListTransactionsRequest{PageToken: "nonsense"})
			return amendsv1.FromError(err)
		}, amendsv1.ErrPageToken, []string{"page_token"}},
		{"unknown filter field", func() error {
			_, err := admin.ListTransactions(t.Context(), &amendsv1.ListTransactionsRequest{Filter: `colour = "red"`})
			return amendsv1.FromError(err)
		}, amendsv1.ErrFilter, []string{"colour", "state", "create_time"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.do()
			if !errors.Is(err, c.is) {
				t.Fatalf("got %v, want %v", err, c.is)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not mention %q", err, s)
				}
			}
		})
	}
}

func TestFullCoordinator(t *testing.T) {
	c := up(t, &coordinator.Config{MaxLive: 1})
	client := sdk.NewClient(c.Conn(), &sdk.ClientConfig{Logger: quiet})
	away := saga.NewAction[string, string]("nobody.there")
	stuck := saga.Define("stuck", func(b *saga.Builder, in string) { b.Step("wait", away.With(in)) })
	if _, err := sdk.Start(t.Context(), client, stuck, "x", nil); err != nil {
		t.Fatal(err)
	}
	_, err := sdk.Start(t.Context(), client, stuck, "y", nil)
	var full *sdk.CoordinatorError
	if !errors.Is(err, sdk.ErrOverloaded) || !errors.As(err, &full) || full.RetryAfter <= 0 {
		t.Errorf("start at a full coordinator: %v, want ErrOverloaded with a delay", err)
	}
}

// otherVersion changes the version in a participant's hello.
type otherVersion struct{ grpc.ClientConnInterface }

func (o otherVersion) NewStream(ctx context.Context, d *grpc.StreamDesc, m string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := o.ClientConnInterface.NewStream(ctx, d, m, opts...)
	return otherHello{s}, err
}

type otherHello struct{ grpc.ClientStream }

func (o otherHello) SendMsg(m any) error {
	if req, ok := m.(*amendsv1.AttendRequest); ok && req.GetHello() != nil {
		req.GetHello().ProtocolVersion++
	}
	return o.ClientStream.SendMsg(m)
}

func TestParticipantOfAnotherVersion(t *testing.T) {
	c := up(t, &coordinator.Config{})
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "other.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p := sdk.NewParticipant("shelf", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleSaga(p, put, func(_ context.Context, _ *sql.Tx, s string) (string, error) { return s, nil }, nil)
	err = p.Run(t.Context(), otherVersion{c.Conn()})
	if !errors.Is(err, sdk.ErrProtocolVersion) || !strings.Contains(err.Error(), "version") {
		t.Errorf("run: %v, want ErrProtocolVersion", err)
	}
}

func TestDataDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	first, err := sqlstore.OpenSQLite(t.Context(), dir, &sqlstore.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = sqlstore.OpenSQLite(t.Context(), dir, &sqlstore.Config{Logger: quiet})
	if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second open: %v, want ErrInUse naming %s", err, dir)
	}
}
