package auth

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

var quiet = slog.New(slog.DiscardHandler)

// logged is a log to look at.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// people is an Authenticator: a token is the name of an identity.
type people struct {
	mu  sync.Mutex
	ids map[string]*Identity
	err error
}

func (p *people) Authenticate(_ context.Context, c Credentials) (*Identity, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	if id := p.ids[c.Token]; id != nil {
		return id, nil
	}
	return nil, amendsv1.ErrUnauthenticated.With("nobody")
}

func (p *people) set(name string, id *Identity, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids[name], p.err = id, err
}

func newGuard(t *testing.T, who Authenticator, cfg *Config) *Guard {
	t.Helper()
	if cfg == nil {
		cfg = &Config{}
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	g, err := New(who, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// services are all that a coordinator serves, none of which does anything, and
// who called last.
type services struct {
	srv  *grpc.Server
	conn *grpc.ClientConn

	mu   sync.Mutex
	last *Caller
}

func (s *services) caller(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, _ := FromContext(ctx)
	s.last = &c
}

type whoAmI struct {
	amendsv1.UnimplementedClusterServiceServer
	s *services
}

func (w whoAmI) WhoAmI(ctx context.Context, _ *amendsv1.WhoAmIRequest) (*amendsv1.WhoAmIResponse, error) {
	w.s.caller(ctx)
	return &amendsv1.WhoAmIResponse{}, nil
}

// attendance receives until the stream ends, and passes on why.
type attendance struct {
	amendsv1.UnimplementedParticipantServiceServer
	s *services
}

func (a attendance) Attend(stream amendsv1.ParticipantService_AttendServer) error {
	a.s.caller(stream.Context())
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&amendsv1.AttendResponse{}); err != nil {
			return err
		}
	}
}

// serving registers every service behind g, on a connection without network.
func serving(t *testing.T, g *Guard, opts ...grpc.ServerOption) *services {
	t.Helper()
	s := &services{srv: grpc.NewServer(opts...)}
	r := g.Registrar(s.srv)
	amendsv1.RegisterTransactionServiceServer(r, amendsv1.UnimplementedTransactionServiceServer{})
	amendsv1.RegisterAdminServiceServer(r, amendsv1.UnimplementedAdminServiceServer{})
	amendsv1.RegisterOperatorServiceServer(r, amendsv1.UnimplementedOperatorServiceServer{})
	amendsv1.RegisterClusterServiceServer(r, whoAmI{s: s})
	amendsv1.RegisterOutboxServiceServer(r, amendsv1.UnimplementedOutboxServiceServer{})
	amendsv1.RegisterParticipantServiceServer(r, attendance{s: s})
	healthpb.RegisterHealthServer(r, health.NewServer())
	reflection.Register(struct {
		grpc.ServiceRegistrar
		reflection.ServiceInfoProvider
	}{r, s.srv})

	lis := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- s.srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	t.Cleanup(func() {
		conn.Close()
		s.srv.Stop()
		<-served
	})
	return s
}

// as is a call with a token and in a namespace; empty: without.
func as(ctx context.Context, token, namespace string) context.Context {
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	if namespace != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, amendsv1.NamespaceHeader, namespace)
	}
	return ctx
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
