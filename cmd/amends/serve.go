package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
)

func newServe() *cobra.Command {
	var n node
	var logs logging
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a coordinator",
		Long: `Run a coordinator until interrupted (SIGINT, SIGTERM). Then it refuses new work,
lets calls under way finish and gives back its leases; a second signal ends it at
once, which loses nothing that was acknowledged.

It keeps transactions in one of two places, whose tables it makes and upgrades:
  --data-dir   a directory with SQLite, for one process at a time
  --mysql      a database of MySQL 8.0, MariaDB 10.6 or newer, for any number of
               coordinators: when one crashes, another takes over after --lease-ttl
` + aboutDSN,
		Example: `  amends serve --data-dir /var/lib/amends
  ` + mysqlEnv + `='amends:…@tcp(db:3306)/amends' amends serve`,
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
		"how long a crash of this coordinator delays its transactions on --mysql")
	cmd.Flags().BoolVar(&n.insecure, "insecure", false, "allow --listen beyond loopback, without TLS and login")
	logs.flags(cmd)
	return cmd
}

func (n *node) run(ctx context.Context, w io.Writer, log *slog.Logger) (err error) {
	st, err := n.at.openStore(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return n.serve(ctx, st, log, func(addr string) error {
		_, err := fmt.Fprintf(w, "amends: serving on %s (data in %s)\n", addr, &n.at)
		return err
	})
}
