package coordinator_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

// converse opens a conversation and returns what asks for one thing in it.
func converse(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface) func(method string, req proto.Message) error { //nolint:revive // t comes first in tests
	t.Helper()
	stream := must(amendsv1.NewTransactionServiceClient(conn).Converse(ctx))(t)
	var failure error
	if _, err := stream.Recv(); err != nil {
		failure = err
	}
	return func(method string, req proto.Message) error {
		if failure != nil {
			return failure
		}
		raw := must(proto.Marshal(req))(t)
		if err := stream.Send(&amendsv1.ConverseRequest{Asks: []*amendsv1.Ask{{Method: method, Request: raw}}}); err != nil {
			return err
		}
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if status := m.GetAnswers()[0].GetStatus(); status != nil {
			return amendsv1.DecodeStatus(status)
		}
		return nil
	}
}

// TestConverseGuarded: in a conversation everybody may do what they may do by
// requests that are alone, as long as they may, and in the namespace that the
// stream names.
func TestConverseGuarded(t *testing.T) {
	g := newGuarded(t)
	begin, find := &amendsv1.BeginTccRequest{Gid: "g", Name: "x"}, &amendsv1.WaitTransactionRequest{Gid: "g"}
	for name, c := range map[string]struct{ cert, token string }{"viewer": {"", g.viewer}, "stranger": {"", auth.NewToken()}, "nobody": {}} {
		conn := g.dial(t, c.cert, c.token)
		_, alone := amendsv1.NewTransactionServiceClient(conn).BeginTcc(t.Context(), begin)
		if err := converse(t, t.Context(), conn)("BeginTcc", begin); status.Code(err) != status.Code(alone) || err == nil {
			t.Errorf("%s: %v, alone %v", name, err, alone)
		}
	}
	conn := g.dial(t, "", g.shelf)
	ask := converse(t, t.Context(), conn)
	if err := ask("BeginTcc", begin); err != nil {
		t.Errorf("a service: %v", err)
	}
	elsewhere := converse(t, metadata.AppendToOutgoingContext(t.Context(), amendsv1.NamespaceHeader, "blue"), conn)
	if err := elsewhere("WaitTransaction", find); status.Code(err) != codes.PermissionDenied {
		t.Errorf("in another namespace: %v", err)
	}
	keep(t, filepath.Join(g.dir, "auth.json"), []byte(`{"tokens": [{"subject": "ann", "grants": ["viewer"], "sha256": "`+auth.HashToken(g.viewer)+`"}]}`))
	for until := time.Now().Add(clusterPatience); ; time.Sleep(10 * time.Millisecond) {
		err := ask("WaitTransaction", &amendsv1.WaitTransactionRequest{Gid: "other"})
		if errors.Is(amendsv1.FromError(err), amendsv1.ErrUnauthenticated) {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("without credentials any more: %v", err)
		}
	}
}

// TestConverseInPlaceOfRequests: what many ask for at once goes by conversations,
// does the same, and outlives tokens: what a stream's own is refused, the newest
// one is asked for.
func TestConverseInPlaceOfRequests(t *testing.T) {
	g := newGuarded(t)
	var streams atomic.Int64
	token := &changingToken{}
	token.now.Store(&g.shelf)
	client := must(auth.ClientTLS(filepath.Join(g.dir, "ca.crt"), "", ""))(t)
	conn := must(grpc.NewClient(g.addr, grpc.WithTransportCredentials(credentials.NewTLS(client)), grpc.WithPerRPCCredentials(token),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if strings.HasSuffix(method, "/Converse") {
				streams.Add(1)
			}
			return next(ctx, desc, cc, method, opts...)
		})))(t)
	defer conn.Close()
	stop := g.attend(t)
	defer stop()
	c := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet})
	many := func() {
		var running errgroup.Group
		for range 32 {
			running.Go(func() error {
				for range 5 {
					if err := sdk.RunSaga(t.Context(), c, putOne, "x", nil); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := running.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	for until := time.Now().Add(clusterPatience); streams.Load() == 0; {
		if time.Now().After(until) {
			t.Fatal("nobody converses")
		}
		many()
	}
	many()
	newer := auth.NewToken()
	token.now.Store(&newer)
	keep(t, filepath.Join(g.dir, "auth.json"), []byte(`{
		"tokens": [{"subject": "shelf-by-token", "grants": ["service"], "services": ["other"], "sha256": "`+auth.HashToken(newer)+`"}],
		"certificates": [{"uri": "spiffe://test/shelf", "subject": "shelf", "grants": ["service"], "services": ["shelf"]}]}`))
	for until := time.Now().Add(clusterPatience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := sdk.Start(t.Context(), c, putOne, "x", nil); err == nil {
			break
		} else if time.Now().After(until) || !errors.Is(err, sdk.ErrUnauthenticated) {
			t.Fatal(err)
		}
	}
	many()
}

// TestRegisterSharesNothing: interceptors of a server of the user's own see every
// request, as long as none is hidden in a stream.
func TestRegisterSharesNothing(t *testing.T) {
	c := up(t, &coordinator.Config{})
	srv := grpc.NewServer()
	c.Register(srv)
	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	var serving errgroup.Group
	serving.Go(func() error { return srv.Serve(lis) })
	conn := must(grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))(t)
	if err := converse(t, t.Context(), conn)("BeginTcc", &amendsv1.BeginTccRequest{Name: "x"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("%v, want Unimplemented", err)
	}
	conn.Close()
	srv.Stop()
	if err := serving.Wait(); err != nil {
		t.Error(err)
	}
	if err := converse(t, t.Context(), c.Conn())("BeginTcc", &amendsv1.BeginTccRequest{Name: "x"}); err != nil {
		t.Errorf("in the process: %v", err)
	}
}

// changingToken is sent as it is when a request begins.
type changingToken struct{ now atomic.Pointer[string] }

func (c *changingToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + *c.now.Load()}, nil
}

func (*changingToken) RequireTransportSecurity() bool { return true }

// attend runs the participant shelf until stop.
func (g *guarded) attend(t *testing.T) (stop func()) {
	t.Helper()
	db := must(sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(g.dir, "shelf.db"))+"&_pragma=synchronous(OFF)"))(t)
	p := sdk.NewParticipant("shelf", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleSaga(p, put,
		func(_ context.Context, _ *sql.Tx, s string) (string, error) { return s, nil },
		func(context.Context, *sql.Tx, string, string) error { return nil })
	ctx, end := context.WithCancel(context.Background())
	var running errgroup.Group
	conn := g.dial(t, "shelf", "")
	running.Go(func() error { return p.Run(ctx, conn) })
	return func() {
		end()
		if err := errors.Join(running.Wait(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}
