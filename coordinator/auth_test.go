package coordinator_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

// guarded is a coordinator that asks, and what is needed to call it.
type guarded struct {
	*coordinator.Coordinator
	dir, addr     string
	viewer, shelf string // tokens
}

// certificates writes ca.crt, server.crt and .key, and shelf.crt and .key, whose
// name is spiffe://test/shelf.
func certificates(t *testing.T, dir string) {
	t.Helper()
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	for i, name := range []string{"ca", "server", "shelf"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: i == 0, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			URIs: []*url.URL{{Scheme: "spiffe", Host: "test", Path: "/" + name}},
		}
		if i == 0 {
			ca, caKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		keep(t, filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		keep(t, filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	}
}

func keep(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{dir: t.TempDir(), viewer: auth.NewToken(), shelf: auth.NewToken()}
	certificates(t, g.dir)
	keep(t, filepath.Join(g.dir, "auth.json"), []byte(`{
		"tokens": [
			{"subject": "ann", "grants": ["viewer"], "sha256": "`+auth.HashToken(g.viewer)+`"},
			{"subject": "shelf-by-token", "grants": ["service"], "services": ["other"], "sha256": "`+auth.HashToken(g.shelf)+`"}],
		"certificates": [
			{"uri": "spiffe://test/shelf", "subject": "shelf", "grants": ["service"], "services": ["shelf"]}]}`))
	path := func(name string) string { return filepath.Join(g.dir, name) }
	guard := must(auth.New(must(auth.OpenFile(path("auth.json"), quiet))(t), &auth.Config{Logger: quiet}))(t)
	server := must(auth.ServerTLS(path("server.crt"), path("server.key"), path("ca.crt"), quiet))(t)
	g.Coordinator = must(coordinator.New(t.Context(), memstore.New(nil),
		&coordinator.Config{Auth: guard, TLS: server, Logger: quiet, DrainTimeout: 100 * time.Millisecond}))(t)
	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	g.addr = lis.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	var running errgroup.Group
	running.Go(func() error { return g.Run(ctx) })
	running.Go(func() error { return g.Serve(ctx, lis) })
	t.Cleanup(func() {
		stop()
		if err := running.Wait(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// dial connects with a certificate and a token; empty: without.
func (g *guarded) dial(t *testing.T, cert, token string) *grpc.ClientConn {
	t.Helper()
	certFile, keyFile := "", ""
	if cert != "" {
		certFile, keyFile = filepath.Join(g.dir, cert+".crt"), filepath.Join(g.dir, cert+".key")
	}
	client := must(auth.ClientTLS(filepath.Join(g.dir, "ca.crt"), certFile, keyFile))(t)
	opts := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(client))}
	if token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(sdk.BearerToken(token, false)))
	}
	conn := must(grpc.NewClient(g.addr, opts...))(t)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func list(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) codes.Code {
	_, err := amendsv1.NewAdminServiceClient(conn).ListTransactions(ctx, &amendsv1.ListTransactionsRequest{}, opts...)
	return status.Code(err)
}

// TestGuarded: over TLS, by token and by certificate, each gets what is theirs
// and no more.
func TestGuarded(t *testing.T) {
	g := newGuarded(t)
	nobody, viewer := g.dial(t, "", ""), g.dial(t, "", g.viewer)
	if _, err := healthpb.NewHealthClient(nobody).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health: %v", err)
	}
	for name, c := range map[string]struct {
		conn grpc.ClientConnInterface
		want codes.Code
	}{
		"nobody":                  {nobody, codes.Unauthenticated},
		"a wrong token":           {g.dial(t, "", auth.NewToken()), codes.Unauthenticated},
		"wrong, with certificate": {g.dial(t, "shelf", auth.NewToken()), codes.Unauthenticated},
		"viewer":                  {viewer, codes.OK},
		"service":                 {g.dial(t, "shelf", ""), codes.PermissionDenied},
		"in the process":          {g.Conn(), codes.OK},
		"in the process, guarded": {g.GuardedConn(), codes.Unauthenticated},
	} {
		if got := list(t.Context(), c.conn); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	token := grpc.PerRPCCredentials(sdk.BearerToken(g.viewer, true))
	if got := list(t.Context(), g.GuardedConn(), token); got != codes.OK {
		t.Errorf("in the process, guarded, with a token: %v", got)
	}
	if _, err := amendsv1.NewTransactionServiceClient(viewer).BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Name: "x"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a viewer begins: %v", err)
	}
	plain := must(grpc.NewClient(g.addr, grpc.WithTransportCredentials(insecure.NewCredentials())))(t)
	defer plain.Close()
	if got := list(t.Context(), plain); got != codes.Unavailable {
		t.Errorf("without TLS: %v", got)
	}
}

// TestGuardedService: a service takes part by its certificate, and only as what
// its credentials name.
func TestGuardedService(t *testing.T) {
	g := newGuarded(t)
	conn := g.dial(t, "shelf", "")
	db := must(sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(g.dir, "shelf.db"))))(t)
	defer db.Close()
	p := sdk.NewParticipant("shelf", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleSaga(p, put,
		func(_ context.Context, _ *sql.Tx, s string) (string, error) { return s, nil },
		func(context.Context, *sql.Tx, string, string) error { return nil })
	ctx, stop := context.WithCancel(t.Context())
	var running errgroup.Group
	running.Go(func() error { return p.Run(ctx, conn) })
	defer func() {
		stop()
		if err := running.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if err := startOne(t.Context(), sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet}), putOne, "x", nil); err != nil {
		t.Fatal(err)
	}

	stream := must(amendsv1.NewParticipantServiceClient(g.dial(t, "", g.shelf)).Attend(t.Context()))(t)
	if err := stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{
		Hello: &amendsv1.Hello{ProtocolVersion: 1, Service: "shelf", Actions: []string{"shelf.put"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(amendsv1.FromError(err), amendsv1.ErrPermission) {
		t.Errorf("attends for another: %v, want ErrPermission", err)
	}
}

// TestGuardedRegister: on a server of the user's own, too.
func TestGuardedRegister(t *testing.T) {
	g := newGuarded(t)
	srv := grpc.NewServer()
	g.Register(srv)
	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	var serving errgroup.Group
	serving.Go(func() error { return srv.Serve(lis) })
	conn := must(grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))(t)
	if got := list(t.Context(), conn); got != codes.Unauthenticated {
		t.Errorf("nobody: %v", got)
	}
	if got := list(t.Context(), conn, grpc.PerRPCCredentials(sdk.BearerToken(g.viewer, true))); got != codes.OK {
		t.Errorf("viewer: %v", got)
	}
	conn.Close()
	srv.Stop()
	if err := serving.Wait(); err != nil {
		t.Error(err)
	}
}

// TestNobodyAsked: without Auth, everything is as open as it was.
func TestNobodyAsked(t *testing.T) {
	c := up(t, &coordinator.Config{})
	for name, conn := range map[string]grpc.ClientConnInterface{"Conn": c.Conn(), "GuardedConn": c.GuardedConn()} {
		if got := list(t.Context(), conn); got != codes.OK {
			t.Errorf("%s: %v", name, got)
		}
	}
}
