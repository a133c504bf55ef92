package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator/store/sealedstore"
)

func newServe() *cobra.Command {
	var n node
	var logs logging
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a coordinator",
		Long: `Run a coordinator until interrupted (SIGINT, SIGTERM). Then it gives its shards to
the other coordinators while it still answers, refuses new work, lets calls under
way finish and gives back its leases; a second signal ends it at once, which loses
nothing that was acknowledged.

It keeps transactions in one of two places, whose tables it makes and upgrades:
  --data-dir   a directory with SQLite, for one process at a time
  --mysql      a database of MySQL 8.0, MariaDB 10.6 or newer, for a cluster of any
               number of coordinators (see docs/cluster.md): each serves every
               request; when one crashes, the others take over after --lease-ttl.
               They reach each other at --advertise

Beyond loopback it listens with TLS and an --auth-file only, which says who may do
what: see 'amends token new'.
` + aboutDSN,
		Example: `  amends serve --data-dir /var/lib/amends
  ` + mysqlEnv + `='amends:…@tcp(db:3306)/amends' amends serve
  amends serve --data-dir /var/lib/amends --http 127.0.0.1:7461
  amends serve --data-dir /var/lib/amends --listen 0.0.0.0:7460 \
      --tls-cert server.crt --tls-key server.key --auth-file auth.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(n.at.resolve(), n.check()); err != nil {
				return err
			}
			log, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return n.run(cmd.Context(), cmd.ErrOrStderr(), log)
		},
	}
	n.at.flags(cmd, "data-dir", "keep transactions in this `directory` (created if missing)")
	n.at.connsFlag("16, or a quarter of what the server admits if that is less")
	n.flags(cmd)
	cmd.Flags().DurationVar(&n.lease, "lease-ttl", 10*time.Second,
		"how long a crash of this coordinator delays its transactions on --mysql; the same for all of a cluster")
	n.publicFlags(cmd)
	logs.flags(cmd)
	return cmd
}

// publicFlags are those of a coordinator that is not for development only.
func (n *node) publicFlags(cmd *cobra.Command) {
	host, _ := os.Hostname() // without one, the coordinator's default name will do
	f := cmd.Flags()
	f.StringVar(&n.name, "name", host[:min(len(host), maxName)], "this coordinator's name, in 'amends cluster' and in logs")
	f.StringVar(&n.advertise, "advertise", "",
		"where other coordinators and clients reach --listen, host:port (default: the host that --listen names, else this machine's name)")
	f.StringVar(&n.http, "http", "",
		"serve the console, the HTTP/JSON API and /metrics on this `address` (default: don't), for example "+defaultHTTP)
	f.StringVar(&n.keys, "encryption-keys", "",
		"seal payloads and replies with the keys in this JSON `file`; once used, it has to stay (see docs/encryption.md)")
	n.telling.flags(cmd)
	n.lifecycle.flags(cmd)
	n.intake.flags(cmd)
	n.outboxes.flags(cmd)
	n.kafka.flags(cmd)
	n.access.flags(cmd)
}

func (n *node) run(ctx context.Context, w io.Writer, log *slog.Logger) (err error) {
	if err := n.kafka.try(ctx, log, n.kafkaUses()...); err != nil {
		return err
	}
	st, err := n.at.openStore(ctx, log, n.lifecycle.into(n.at.dialect(), log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := n.lifecycle.open(ctx, &n.at, &n.kafka); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.lifecycle.close()) }()
	if n.keys != "" {
		keys, err := sealedstore.OpenKeys(n.keys, log)
		if err != nil {
			return fmt.Errorf("--encryption-keys: %w", err)
		}
		n.sealed = sealedstore.New(st, keys, &sealedstore.Config{Logger: log})
		st = n.sealed
	}
	return n.serve(ctx, st, log, func(at serving) error {
		_, err := fmt.Fprintf(w, "amends: serving on %s (data in %s)\n", at.addr, &n.at)
		if at.console != "" {
			_, consoleErr := fmt.Fprintf(w, "amends: console on %s\n", at.console)
			err = errors.Join(err, consoleErr)
		}
		return err
	})
}
