package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
)

// minLease is the shortest lease that a busy machine can be relied on to renew.
const minLease = time.Second

// node is a coordinator of this process.
type node struct {
	at        location
	listen    string
	insecure  bool
	maxLive   int
	lease     time.Duration // 0: the coordinator's default
	retention time.Duration
	drain     time.Duration
}

func (n *node) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&n.listen, "listen", defaultAddr, "serve gRPC on this `address`")
	f.IntVar(&n.maxLive, "max-live", 100_000, "most unfinished transactions; over it starts are refused")
	f.DurationVar(&n.retention, "retention", 7*24*time.Hour, "how long finished transactions are kept (negative: for ever)")
	f.DurationVar(&n.drain, "drain-timeout", 5*time.Second, "how long calls under way may take at shutdown")
}

// check finds mistakes in the flags.
func (n *node) check() error {
	switch {
	case n.maxLive <= 0:
		return usagef("--max-live is %d: give 1 or more", n.maxLive)
	case n.retention == 0:
		return usagef("--retention is 0: give a duration, or a negative one for ever")
	case n.drain <= 0:
		return usagef("--drain-timeout is %v: give a duration above 0", n.drain)
	case n.lease != 0 && n.lease < minLease:
		return usagef("--lease-ttl is %v: give %v or more", n.lease, minLease)
	}
	return checkListen("--listen", n.listen, n.insecure)
}

// serve drives and answers until ctx ends, then drains. ready is called once
// requests are answered.
func (n *node) serve(ctx context.Context, st store.Store, log *slog.Logger, ready func(addr string) error) error {
	c, err := coordinator.New(ctx, st, &coordinator.Config{
		MaxLive: n.maxLive, LeaseTTL: n.lease, Retention: n.retention, DrainTimeout: n.drain, Logger: log,
	})
	if err != nil {
		return err
	}
	lis, err := listen(ctx, "--listen", n.listen)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return c.Serve(ctx, lis) })
	g.Go(func() error { return ready(lis.Addr().String()) })
	return g.Wait()
}
