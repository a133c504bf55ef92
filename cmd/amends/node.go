package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sealedstore"
)

// maxName is the longest name of a coordinator in bytes.
const maxName = 128

// minLease is the shortest lease that a busy machine can be relied on to renew.
const minLease = time.Second

// node is a coordinator of this process.
type node struct {
	at        location
	listen    string
	advertise string // empty: as listen says
	http      string // empty: none
	access    access
	telling   telling
	lifecycle lifecycle
	intake    intake
	outboxes  outboxes
	kafka     kafkaLogin // to all brokers that are named
	keys      string     // file of encryption keys; empty: payloads are not sealed
	sealed    *sealedstore.Store
	maxLive   int
	lease     time.Duration // 0: the coordinator's default
	retention time.Duration
	stall     time.Duration
	drain     time.Duration
	name      string // empty: the coordinator's default
}

func (n *node) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&n.listen, "listen", defaultAddr, "serve gRPC on this `address`")
	f.IntVar(&n.maxLive, "max-live", 100_000, "most unfinished transactions; over it starts are refused")
	f.DurationVar(&n.retention, "retention", 7*24*time.Hour, "how long finished transactions are kept (negative: for ever)")
	f.DurationVar(&n.stall, "stall-after", time.Minute,
		"how long a transaction may wait for a participant before it counts as stalled (negative: for ever)")
	f.DurationVar(&n.drain, "drain-timeout", 5*time.Second, "how long calls under way may take at shutdown")
}

// check finds mistakes in the flags.
func (n *node) check() error {
	switch {
	case n.maxLive <= 0:
		return usagef("--max-live is %d: give 1 or more", n.maxLive)
	case n.retention == 0:
		return usagef("--retention is 0: give a duration, or a negative one for ever")
	case n.stall == 0:
		return usagef("--stall-after is 0: give a duration, or a negative one for never")
	case len(n.name) > maxName:
		return usagef("--name has %d bytes: at most %d are kept", len(n.name), maxName)
	case n.drain <= 0:
		return usagef("--drain-timeout is %v: give a duration above 0", n.drain)
	case n.lease != 0 && n.lease < minLease:
		return usagef("--lease-ttl is %v: give %v or more", n.lease, minLease)
	}
	errs := []error{checkAdvertise(n.advertise), n.access.check(), n.access.checkListen("--listen", n.listen), n.outboxes.check(n.http),
		n.lifecycle.check(), n.intake.check(), n.kafka.check(brokersOf(n.kafkaUses()))}
	if n.http != "" {
		errs = append(errs, n.access.checkListen("--http", n.http))
	}
	return errors.Join(errs...)
}

// kafkaUses are what it does with Kafka.
func (n *node) kafkaUses() []kafkaUse {
	return []kafkaUse{
		{"--lifecycle-kafka", n.lifecycle.brokers}, {"--intake-kafka", n.intake.brokers},
		{"--dead-letters-kafka", n.outboxes.letters.brokers},
	}
}

// serving is where a node answers.
type serving struct {
	addr    string
	console string // a URL; empty: none
}

// serve drives and answers until ctx ends, then drains. ready is called once
// requests are answered.
func (n *node) serve(ctx context.Context, st store.Store, log *slog.Logger, ready func(serving) error) error {
	if err := n.access.load(log); err != nil {
		return err
	}
	notifier, err := n.telling.notifier(st, n.name, log)
	if err != nil {
		return err
	}
	lis, err := listen(ctx, "--listen", n.listen)
	if err != nil {
		return err
	}
	cfg, err := n.config(notifier, lis.Addr(), log)
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	c, err := coordinator.New(ctx, st, cfg)
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	web, err := n.newWeb(ctx, c, notifier, log)
	if err != nil {
		return errors.Join(err, lis.Close())
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return drive(ctx, c, notifier) })
	g.Go(func() error { return n.lifecycle.run(ctx) })
	g.Go(func() error { return n.intake.run(ctx, c.Conn(), &n.kafka, log) })
	g.Go(func() error { return n.beside(ctx) })
	g.Go(func() error { return c.Serve(ctx, lis) })
	g.Go(func() error { return web.run(ctx) })
	g.Go(func() error { return ready(serving{lis.Addr().String(), web.url()}) })
	return g.Wait()
}

// beside does what holds up nothing else.
func (n *node) beside(ctx context.Context) error {
	n.access.prefetch(ctx)
	if n.sealed == nil {
		return nil
	}
	return n.sealed.Run(ctx)
}

func (n *node) config(notifier *notify.Notifier, lis net.Addr, log *slog.Logger) (*coordinator.Config, error) {
	address, err := advertised(n.advertise, n.listen, lis, n.at.conf != nil)
	if err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	cfg := &coordinator.Config{
		Name: n.name, Address: address, Version: buildVersion(), ClusterTLS: n.access.clusterTLS,
		StallAfter: n.stall, MaxLive: n.maxLive, LeaseTTL: n.lease, Retention: n.retention,
		DrainTimeout: n.drain, Logger: log, Auth: n.access.guard, TLS: n.access.grpcTLS,
	}
	if notifier != nil {
		cfg.Observers = append(cfg.Observers, notifier.Observe)
	}
	n.lifecycle.tell(cfg)
	return cfg, nil
}

// drive runs a coordinator, and its notifier, if any, until after its end: what
// happens last is told, too.
func drive(ctx context.Context, c *coordinator.Coordinator, notifier *notify.Notifier) error {
	if notifier == nil {
		return c.Run(ctx)
	}
	telling, stop := context.WithCancel(context.WithoutCancel(ctx))
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		return c.Run(ctx)
	})
	g.Go(func() error { return notifier.Run(telling) })
	return g.Wait()
}
