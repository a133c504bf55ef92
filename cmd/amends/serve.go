package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
)

func newServe() *cobra.Command {
	var n node
	var logs logging
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a coordinator on the embedded store",
		Long: `Run a coordinator on the embedded store, until interrupted (SIGINT, SIGTERM).
Then it refuses new work, lets calls under way finish and gives back its leases;
a second signal ends it at once, which loses nothing that was acknowledged.

One process at a time can use a data directory.`,
		Example: "  amends serve --data-dir /var/lib/amends",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n.dataDir == "" {
				return usagef("--data-dir is empty: name the directory that keeps the transactions")
			}
			if err := checkListen("--listen", n.listen, n.insecure); err != nil {
				return err
			}
			log, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return n.run(cmd.Context(), cmd.ErrOrStderr(), log)
		},
	}
	n.flags(cmd)
	logs.flags(cmd)
	cmd.Flags().StringVar(&n.dataDir, "data-dir", "", "directory that keeps the transactions (created if missing)")
	cmd.Flags().BoolVar(&n.insecure, "insecure", false, "allow --listen beyond loopback, without TLS and login")
	return cmd
}

func (n *node) run(ctx context.Context, w io.Writer, log *slog.Logger) (err error) {
	st, err := n.open(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return n.serve(ctx, st, log, func(addr string) error {
		_, err := fmt.Fprintf(w, "amends: serving on %s (data in %s)\n", addr, n.dataDir)
		return err
	})
}
