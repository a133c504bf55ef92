package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/sdk"
)

// coordinators runs as many as the configuration says on one store, filled as
// it says, and returns their addresses.
func (r *rig) coordinators(ctx context.Context) ([]string, error) {
	st, err := r.openStore(ctx)
	if err != nil {
		return nil, err
	}
	r.undo = append(r.undo, st.Close)
	if err := r.fill(ctx, st); err != nil {
		return nil, err
	}
	r.started = time.Now()
	addrs := make([]string, 0, max(1, r.cfg.Scale.Coordinators))
	for i := range cap(addrs) {
		addr, err := r.member(ctx, st, fmt.Sprint("bench-", i))
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	r.addrs = addrs
	return addrs, nil
}

// member runs one that listens on loopback, and returns its address.
func (r *rig) member(ctx context.Context, st store.Store, name string) (string, error) {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	cfg := &coordinator.Config{Name: name, MaxLive: r.cfg.Scale.MaxLive, Logger: r.cfg.Logger}
	if r.cfg.Scale.Coordinators > 1 {
		cfg.Address = lis.Addr().String()
	}
	c, err := coordinator.New(ctx, st, cfg)
	if err != nil {
		return "", errors.Join(err, lis.Close())
	}
	r.run(ctx, c.Run, func(ctx context.Context) error { return c.Serve(ctx, lis) })
	return lis.Addr().String(), nil
}

// connect returns a connection to all of some coordinators.
func (r *rig) connect(addrs []string) (grpc.ClientConnInterface, error) {
	if len(addrs) == 1 {
		return r.dial(addrs[0])
	}
	c, err := sdk.Dial(addrs, &sdk.DialConfig{Logger: r.cfg.Logger})
	if err == nil {
		r.undo = append(r.undo, c.Close)
	}
	return c, err
}

// until runs things until stop, or until one fails. That what one of them was
// connected to ended before it, after stop, is no failure.
func until(ctx context.Context, things ...func(context.Context) error) (g *errgroup.Group, stop context.CancelFunc) {
	ctx, stop = context.WithCancel(ctx)
	g, gctx := errgroup.WithContext(ctx)
	for _, thing := range things {
		g.Go(func() error {
			err := thing(gctx)
			if ctx.Err() != nil && status.Code(err) == codes.Unavailable {
				return nil
			}
			return err
		})
	}
	return g, stop
}
