// Package coordinator drives global transactions to their end.
//
// A Coordinator on a store serves the gRPC services of package amendsv1:
// clients start sagas and TCC transactions, participants attend and receive
// their calls, auditors read. Embed one in a service and reach it through Conn,
// or serve it to others with Serve or Register:
//
//	c, err := coordinator.New(ctx, store, nil)
//	g.Go(func() error { return c.Run(ctx) })
//	client := sdk.NewClient(c.Conn(), nil)
package coordinator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// tracerName is the instrumentation scope of a coordinator's spans.
const tracerName = "github.com/amends-dev/amends/coordinator"

// maxHeaders bounds what is read of a request before it is known whose it is,
// in bytes.
const maxHeaders = 64 << 10

// Config holds what may be left out. Zero values stand for the defaults.
type Config struct {
	// Name tells coordinators apart in logs. Default: "coordinator".
	Name string
	// Workers is how many goroutines share the shards. Default 2.
	Workers int
	// LeaseTTL is how long a crash of this coordinator delays its transactions
	// on a store that others can open. Default 10 s.
	LeaseTTL time.Duration
	// MaxLive bounds the unfinished transactions in memory; a start over it is
	// refused with sdk.ErrOverloaded and a delay. Default 100,000.
	MaxLive int
	// MaxPayload bounds a request's and a reply's payload, in bytes. Default
	// 1 MiB.
	MaxPayload int
	// StallAfter is how long a transaction may wait for a participant before it
	// counts as stalled: lists find it by that and by the service, and its audit
	// trail says so. Default 1 min; negative: never.
	StallAfter time.Duration
	// Retention is how long finished transactions are kept for audit. Default
	// 7 days; negative: for ever.
	Retention time.Duration
	// DrainTimeout bounds the wait for calls under way when Run ends. Default
	// 5 s.
	DrainTimeout time.Duration
	// Observers are told of every transition once it is durable, with its audit
	// events; not of one whose answer was lost with the coordinator. They hold
	// up the engine: they must not block, and change nothing.
	Observers []func(rec store.Record, events []store.Event)
	// Announce says what a transition tells the world outside. Its messages are
	// committed together with it, to the outbox of the store, which must have
	// one (sqlstore.Config.Outbox). It is called before the commit, which may
	// fail, and must not block. notify.Lifecycle is one. nil: nothing.
	Announce func(rec store.Record, events []store.Event) []store.Message
	// Auth stands before every service, those of Register included; only Conn
	// goes past it. Default: nobody is asked who they are, and all may do
	// everything.
	Auth *auth.Guard
	// Quota is what a namespace may take of this coordinator; it is asked at
	// every start, and must not block. A start over it is refused with
	// sdk.ErrOverloaded; what was started goes on. Default: Auth's, which are
	// those of an auth.File.
	Quota func(namespace string) auth.Quota
	// TracerProvider makes spans of starts, transitions and calls, in the traces
	// in which transactions were started; of others there are none. Default: the
	// program's own (otel.SetTracerProvider).
	TracerProvider trace.TracerProvider
	// TLS is how Serve talks, for example auth.ServerTLS. Default: plaintext.
	TLS *tls.Config
	// Logger takes what operators should know. Default slog.Default().
	Logger *slog.Logger
}

// Coordinator drives the transactions of one store. All methods are safe for
// concurrent use.
type Coordinator struct {
	cfg    Config
	engine *engine.Engine
	hub    *dispatch.Hub
	api    *api.Server
	own    *inProcess // whoever uses it is trusted
	guest  *inProcess // whoever uses it is asked for credentials
}

// New makes a coordinator on a store, which stays the caller's to close, after
// Run has returned. It reports every mistake in cfg at once.
func New(ctx context.Context, st store.Store, cfg *Config) (*Coordinator, error) {
	c := &Coordinator{}
	if cfg != nil {
		c.cfg = *cfg
	}
	if c.cfg.Logger == nil {
		c.cfg.Logger = slog.Default()
	}
	if c.cfg.Name == "" {
		c.cfg.Name = "coordinator"
	}
	if c.cfg.Auth == nil {
		c.cfg.Auth = auth.Open()
	}
	if c.cfg.TracerProvider == nil {
		c.cfg.TracerProvider = otel.GetTracerProvider()
	}
	owner := c.cfg.Name + "-" + uuid.NewString()[:8] // unique: leases are held by it
	eng, err := engine.New(ctx, st, &engine.Config{
		Owner: owner, Quota: c.quota(), Tracer: c.cfg.TracerProvider.Tracer(tracerName), StallAfter: c.cfg.StallAfter, Observers: c.cfg.Observers, Announce: c.cfg.Announce, Workers: c.cfg.Workers, LeaseTTL: c.cfg.LeaseTTL, MaxLive: c.cfg.MaxLive, Retention: c.cfg.Retention,
		DrainTimeout: c.cfg.DrainTimeout, Logger: c.cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	c.engine = eng
	c.hub = dispatch.New(eng.Outcome, &dispatch.Config{Name: c.cfg.Name, Logger: c.cfg.Logger})
	eng.SetDispatcher(c.hub)
	c.api, err = api.New(eng, st, c.hub.Offers, &api.Config{
		MaxPayload: c.cfg.MaxPayload, Owner: owner, Caller: caller, Services: c.hub.Services, Logger: c.cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	if c.own, err = newInProcess(); err != nil {
		return nil, err
	}
	if c.guest, err = newInProcess(); err != nil {
		return nil, err
	}
	return c, nil
}

// quota is what the engine asks.
func (c *Coordinator) quota() func(namespace string) engine.Quota {
	of := c.cfg.Quota
	if of == nil {
		of = c.cfg.Auth.Quota
	}
	return func(namespace string) engine.Quota {
		q := of(namespace)
		return engine.Quota{Live: q.Live, Rate: q.StartsPerSecond, Burst: q.Burst}
	}
}

// Run drives transactions and serves Conn until ctx ends. Then it drains: new
// work is refused as unavailable, calls under way get DrainTimeout to be
// answered, and leases are given back. It returns an error only when the store
// was closed under it or was taken away. A coordinator runs once.
func (c *Coordinator) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(context.WithoutCancel(ctx))
	own, guest := c.newServer(), c.newServer(grpc.UnaryInterceptor(auth.CarriedUnary), grpc.StreamInterceptor(auth.CarriedStream))
	c.register(auth.InProcess().Registrar(own))
	c.Register(guest)
	g.Go(func() error { return ignoreStopped(own.Serve(c.own.lis)) })
	g.Go(func() error { return ignoreStopped(guest.Serve(c.guest.lis)) })
	g.Go(func() error {
		defer c.hub.Close()
		err := c.engine.Run(ctx)
		own.Stop()
		guest.Stop()
		return errors.Join(err, c.own.conn.Close(), c.guest.conn.Close())
	})
	_ = gctx // the goroutines end each other; none waits for the group's context
	return g.Wait()
}

// Conn is a connection to this coordinator that stays in the process. Whoever
// uses it is trusted: it has every role, and its subject is "in-process". It
// works while Run does.
func (c *Coordinator) Conn() grpc.ClientConnInterface { return c.own.conn }

// GuardedConn is like Conn, but Config.Auth stands before it: for gateways in
// the process that pass on requests of others, with their credentials: tokens
// as metadata, and certificates by auth.ClientCertificates.
func (c *Coordinator) GuardedConn() grpc.ClientConnInterface { return auth.Carry(c.guest.conn) }

// Register adds the coordinator's services, with Config.Auth before them, to a
// gRPC server of the caller's, which should have been given
// grpc.MaxRecvMsgSize(c.MaxMessageSize()).
func (c *Coordinator) Register(r grpc.ServiceRegistrar) { c.register(c.cfg.Auth.Registrar(r)) }

func (c *Coordinator) register(r grpc.ServiceRegistrar) {
	c.api.Register(r)
	amendsv1.RegisterParticipantServiceServer(r, attendance{hub: c.hub})
}

// MaxMessageSize is the largest message that the services should let in, in
// bytes: with less, what is too large is refused without saying which limit.
func (c *Coordinator) MaxMessageSize() int { return c.api.MaxMessageSize() }

// Serve answers on lis, with health and reflection, until ctx ends; then it
// lets requests under way finish for a moment. It closes lis. Run must be
// running beside it.
func (c *Coordinator) Serve(ctx context.Context, lis net.Listener) error {
	opts := []grpc.ServerOption{grpc.MaxHeaderListSize(maxHeaders)}
	if c.cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(c.cfg.TLS)))
	}
	srv := c.newServer(opts...)
	c.Register(srv)
	guarded := c.cfg.Auth.Registrar(srv)
	checks := health.NewServer()
	healthpb.RegisterHealthServer(guarded, checks)
	reflection.Register(struct {
		grpc.ServiceRegistrar
		reflection.ServiceInfoProvider
	}{guarded, srv})
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ignoreStopped(srv.Serve(lis)) })
	g.Go(func() error {
		<-gctx.Done()
		checks.Shutdown()
		stopGently(srv, c.drainTimeout())
		return nil
	})
	return g.Wait()
}

func (c *Coordinator) drainTimeout() time.Duration {
	if c.cfg.DrainTimeout > 0 {
		return c.cfg.DrainTimeout
	}
	return 5 * time.Second
}

func (c *Coordinator) newServer(opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(c.MaxMessageSize()))...)
}

// inProcess is a connection that needs no network.
type inProcess struct {
	lis  *bufconn.Listener
	conn *grpc.ClientConn
}

func newInProcess() (*inProcess, error) {
	p := &inProcess{lis: bufconn.Listen(1 << 20)}
	conn, err := grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	p.conn = conn
	return p, nil
}

// stopGently waits for requests under way, but not for streams that never end.
func stopGently(srv *grpc.Server, limit time.Duration) {
	timer := time.AfterFunc(limit, srv.Stop)
	defer timer.Stop()
	srv.GracefulStop()
}

func ignoreStopped(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// attendance is the participants' service: the hub's, under gRPC's name.
type attendance struct {
	amendsv1.UnimplementedParticipantServiceServer
	hub *dispatch.Hub
}

// Attend serves one participant's stream.
func (a attendance) Attend(stream amendsv1.ParticipantService_AttendServer) error {
	who, _ := auth.FromContext(stream.Context()) // every stream comes through a guard
	return a.hub.Attend(who.Namespace, stream)
}

// caller is who asks, as handlers see it.
func caller(ctx context.Context) api.Caller {
	who, _ := auth.FromContext(ctx) // every request comes through a guard
	return api.Caller{
		Subject: who.Subject, Namespace: who.Namespace, Roles: who.Roles(), Namespaces: who.Namespaces(),
		Services: who.Services, Authenticated: who.Authenticated,
	}
}
