package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// rewatch is the pause before a lost stream is asked for again.
const rewatch = time.Second

type watching struct {
	asking
	seq int64 // of the last event printed
}

func newTxWatch() *cobra.Command {
	var w watching
	cmd := &cobra.Command{
		Use:   "watch GID",
		Short: "Print the audit trail of one transaction as it grows, until it has finished",
		Long: `Print the audit trail of one transaction as it grows, until it has finished. When
the coordinator restarts meanwhile, it goes on where it was.`,
		Args: oneGID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return w.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
				return w.follow(ctx, cmd, c.admin, args[0])
			})
		},
	}
	w.flags(cmd)
	cmd.Flags().Int64Var(&w.seq, "after", 0, "only events with a greater number")
	return cmd
}

// follow watches until the transaction has finished, resuming lost streams. A
// coordinator that never answered is an error at once.
func (w *watching) follow(ctx context.Context, cmd *cobra.Command, admin amendsv1.AdminServiceClient, gid string) error {
	for answered := false; ; {
		before := w.seq
		err := w.stream(ctx, cmd.OutOrStdout(), admin, gid)
		answered = answered || w.seq > before
		if err == nil || !answered || ctx.Err() != nil || status.Code(err) != codes.Unavailable {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "amends: lost %s, asking again\n", w.addr)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rewatch):
		}
	}
}

// stream prints one stream's events; nil means that the transaction finished.
func (w *watching) stream(ctx context.Context, out io.Writer, admin amendsv1.AdminServiceClient, gid string) error {
	s, err := admin.WatchTransaction(ctx, &amendsv1.WatchTransactionRequest{Gid: gid, AfterSeq: w.seq})
	if err != nil {
		return err
	}
	for {
		resp, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		w.seq = resp.GetEvent().GetSeq()
		if err := w.print(out, resp.GetEvent()); err != nil {
			return err
		}
	}
}

func (w *watching) print(out io.Writer, e *amendsv1.Event) error {
	if w.out.json() {
		return printLine(out, e)
	}
	row := eventRow(e)
	_, err := fmt.Fprintf(out, "%4s  %s  %-10s  %s\n", row[0].text, row[1].text, printable(e.GetType()), printable(row[3].text))
	return err
}
