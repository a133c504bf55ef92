package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
)

// node is a coordinator on the embedded store.
type node struct {
	dataDir   string
	listen    string
	insecure  bool
	maxLive   int
	retention time.Duration
	drain     time.Duration
}

func (n *node) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&n.listen, "listen", defaultAddr, "address of the gRPC services")
	f.IntVar(&n.maxLive, "max-live", 0, "most unfinished transactions; over it starts are refused (0: 100,000)")
	f.DurationVar(&n.retention, "retention", 0, "how long finished transactions are kept (0: 7 days; negative: for ever)")
	f.DurationVar(&n.drain, "drain-timeout", 0, "how long calls under way may take at shutdown (0: 5s)")
}

// open opens the store, which one process at a time can have.
func (n *node) open(ctx context.Context, log *slog.Logger) (store.Store, error) {
	st, err := sqlstore.OpenSQLite(ctx, n.dataDir, &sqlstore.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	return st, nil
}

// serve drives and answers until ctx ends, then drains. ready is called once
// requests are answered.
func (n *node) serve(ctx context.Context, st store.Store, log *slog.Logger, ready func(addr string) error) error {
	c, err := coordinator.New(ctx, st, &coordinator.Config{
		MaxLive: n.maxLive, Retention: n.retention, DrainTimeout: n.drain, Logger: log,
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
