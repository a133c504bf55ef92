package coordinator

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/internal/converse"
)

// Run drives transactions and serves Conn until ctx ends. Then it drains. Where
// there are other coordinators on the store, they take its shards first, while
// it still answers; requests that wait are ended as unavailable, for their
// callers to wait at another one, and other requests of a Serve whose context has
// ended, too, are answered; one that goes on serving sends callers elsewhere. Then
// new work is refused as unavailable, calls under way get DrainTimeout to be
// answered, and leases are given back. It returns an error only when the store
// was closed under it or was taken away. A coordinator runs once.
func (c *Coordinator) Run(ctx context.Context) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, gctx := errgroup.WithContext(inner)
	own, guest := c.newServer(), c.newServer(grpc.UnaryInterceptor(auth.CarriedUnary), grpc.StreamInterceptor(auth.CarriedStream))
	c.register(auth.InProcess().Registrar(c.talks.Registrar(own)))
	c.register(c.cfg.Auth.Registrar(c.talks.Registrar(guest)))
	g.Go(func() error { return ignoreStopped(own.Serve(c.own.lis)) })
	g.Go(func() error { return ignoreStopped(guest.Serve(c.guest.lis)) })
	front, endFront := context.WithCancel(context.WithoutCancel(ctx)) // until the engine has ended: it hands over to others
	defer endFront()
	g.Go(func() error { return c.front.Run(front) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			c.leave(gctx)
		case <-gctx.Done():
		}
		stop()
		return nil
	})
	g.Go(func() error {
		defer c.hub.Close()
		err := c.engine.Run(inner)
		stop()
		c.talks.Drain()
		c.front.End()
		own.Stop()
		guest.Stop()
		endFront()
		return errors.Join(err, c.own.conn.Close(), c.guest.conn.Close())
	})
	return g.Wait()
}

// leave has the other coordinators take the shards, then ends what waits, and
// returns when those Serves have ended that are to end. Where there are no others,
// what is under way is for the engine to drain.
func (c *Coordinator) leave(ctx context.Context) {
	if !c.handOver(ctx) {
		return
	}
	c.hub.Close() // no call comes from here any more
	c.talks.Drain()
	c.front.End()
	ctx, cancel := context.WithTimeout(ctx, 2*c.drainTimeout()) // as long as they take
	defer cancel()
	for _, one := range c.serves.ending() {
		select {
		case <-one.ended:
		case <-ctx.Done():
		}
	}
}

// handOver has other coordinators take all shards, and reports whether they
// did.
func (c *Coordinator) handOver(ctx context.Context) bool {
	if len(c.engine.Members()) < 2 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, c.drainTimeout())
	defer cancel()
	return c.engine.Drain(ctx) == nil // what is left, the engine hands over at its end, and says so
}

// minPing is how often callers may ping, other coordinators among them, which
// do so every 10 s while they wait for an answer.
const minPing = 5 * time.Second

// Serve answers on lis, with health and reflection, until ctx ends; then other
// coordinators on the store, if there are any, take the shards, and requests
// under way finish for a moment. It closes lis. Run must be running beside it.
func (c *Coordinator) Serve(ctx context.Context, lis net.Listener) error {
	defer c.serves.begin(ctx)()
	opts := []grpc.ServerOption{
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
	if c.cfg.TLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(c.cfg.TLS)))
	}
	srv, talks := c.newServer(opts...), converse.New()
	c.Register(talks.Registrar(srv))
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
		c.handOver(context.WithoutCancel(ctx))
		talks.Drain()
		stopGently(srv, c.drainTimeout())
		return nil
	})
	return g.Wait()
}

// serves are the Serves that run.
type serves struct {
	mu  sync.Mutex
	all map[*serving]struct{}
}

// serving is one of them.
type serving struct {
	ctx   context.Context // it goes on until this ends
	ended chan struct{}
}

// begin notes one, and returns what is to be called at its end.
func (s *serves) begin(ctx context.Context) (end func()) {
	one := &serving{ctx: ctx, ended: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*serving]struct{}{}
	}
	s.all[one] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, one)
		close(one.ended)
	}
}

// ending are those that have yet to end, and are about to.
func (s *serves) ending() []*serving {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*serving
	for one := range s.all {
		if one.ctx.Err() != nil {
			all = append(all, one)
		}
	}
	return all
}

func (c *Coordinator) drainTimeout() time.Duration {
	if c.cfg.DrainTimeout > 0 {
		return c.cfg.DrainTimeout
	}
	return 5 * time.Second
}

// window is what a peer may send ahead, in bytes, on a stream and on a connection.
// A fixed one saves the pings by which gRPC would look for a better one, at every
// request of a quiet connection.
const window = 1 << 20

func (c *Coordinator) newServer(opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(c.MaxMessageSize()),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window))...)
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
