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
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
)

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
	// Retention is how long finished transactions are kept for audit. Default
	// 7 days; negative: for ever.
	Retention time.Duration
	// DrainTimeout bounds the wait for calls under way when Run ends. Default
	// 5 s.
	DrainTimeout time.Duration
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
	local  *bufconn.Listener
	conn   *grpc.ClientConn
}

// New makes a coordinator on a store, which stays the caller's to close, after
// Run has returned. It reports every mistake in cfg at once.
func New(ctx context.Context, st store.Store, cfg *Config) (*Coordinator, error) {
	c := &Coordinator{local: bufconn.Listen(1 << 20)}
	if cfg != nil {
		c.cfg = *cfg
	}
	if c.cfg.Logger == nil {
		c.cfg.Logger = slog.Default()
	}
	if c.cfg.Name == "" {
		c.cfg.Name = "coordinator"
	}
	eng, err := engine.New(ctx, st, &engine.Config{
		Workers: c.cfg.Workers, LeaseTTL: c.cfg.LeaseTTL, MaxLive: c.cfg.MaxLive, Retention: c.cfg.Retention,
		DrainTimeout: c.cfg.DrainTimeout, Logger: c.cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	c.engine = eng
	c.hub = dispatch.New(eng.Outcome, &dispatch.Config{Name: c.cfg.Name, Logger: c.cfg.Logger})
	eng.SetDispatcher(c.hub)
	c.api, err = api.New(eng, st, c.hub.Offers, &api.Config{MaxPayload: c.cfg.MaxPayload, Logger: c.cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	c.conn, err = grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.local.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	return c, nil
}

// Run drives transactions and serves Conn until ctx ends. Then it drains: new
// work is refused as unavailable, calls under way get DrainTimeout to be
// answered, and leases are given back. It returns an error only when the store
// was closed under it or was taken away. A coordinator runs once.
func (c *Coordinator) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(context.WithoutCancel(ctx))
	srv := c.newServer()
	g.Go(func() error { return ignoreStopped(srv.Serve(c.local)) })
	g.Go(func() error {
		defer c.hub.Close()
		err := c.engine.Run(ctx)
		srv.Stop()
		return errors.Join(err, c.conn.Close())
	})
	_ = gctx // the goroutines end each other; none waits for the group's context
	return g.Wait()
}

// Conn is a connection to this coordinator that stays in the process. It works
// while Run does.
func (c *Coordinator) Conn() grpc.ClientConnInterface { return c.conn }

// Register adds the coordinator's services to a gRPC server of the caller's,
// which should have been given grpc.MaxRecvMsgSize(c.MaxMessageSize()).
func (c *Coordinator) Register(r grpc.ServiceRegistrar) {
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
	srv := c.newServer()
	checks := health.NewServer()
	healthpb.RegisterHealthServer(srv, checks)
	reflection.Register(srv)
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

func (c *Coordinator) newServer() *grpc.Server {
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(c.MaxMessageSize()))
	c.Register(srv)
	return srv
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
	return a.hub.Attend(stream)
}
