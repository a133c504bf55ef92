package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/outbox/inbox"
)

func newLetterRequeue() *cobra.Command {
	var a deadAsking
	var f letterFilter
	var req inbox.RequeueRequest
	cmd := &cobra.Command{
		Use: "requeue [PLACE]", Short: "Send dead letters back to their topic",
		Long: `Send dead letters back to the topic that they came from, behind what is there,
those of one key in their order: one by its place, those of an id, a key or a group,
or all that are there now. The group that gave a message up handles it like a new
one; groups that have handled it know it again.

The letters stay where they are, and what was requeued is recorded in the topic's
.dead.requeued, with who did it and the reason: a repeated command skips it. To be
requeued again, it has to be named with --requeued.`,
		Example: `  amends dead requeue 2/17 --kafka 127.0.0.1:9460 --topic orders --reason 'article 7 is back'
  amends dead requeue --all --kafka 127.0.0.1:9460 --topic orders --group mailer --dry-run`,
		Args: func(_ *cobra.Command, args []string) error {
			given := f.ID != "" || f.Key != "" || f.Group != "" || req.All
			if len(args) > 1 || (len(args) == 1) == given {
				return usagef("say which dead letters: give one place, or --id, --key, --group or --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			req.DeadLetterFilter, req.Offset = f.DeadLetterFilter, -1
			if len(args) == 1 {
				if req.Partition, req.Offset, err = inbox.ParseDeadLetterPlace(args[0]); err != nil {
					return &usageError{err}
				}
			}
			if req.DryRun && req.Reason == "" {
				req.Reason = "dry run" // which nobody will read
			} else if req.Reason, err = personAt(cmd).reason(cmd.Context(), req.Reason); err != nil {
				return err
			}
			req.Actor = strings.TrimSuffix(atDatabase(cmd.Context()), " (database)")
			return a.ask(cmd, func(ctx context.Context, d *inbox.DeadLetters) error {
				res, err := d.Requeue(ctx, req)
				return errors.Join(a.showRequeued(cmd, req.DryRun, res, err != nil), err)
			})
		},
	}
	a.flags(cmd)
	f.flags(cmd, "those that were requeued before, again")
	cmd.Flags().BoolVar(&req.All, "all", false, "all that are there now")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the record (asked for on a terminal)")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "only say what it would do")
	return cmd
}

func (a *deadAsking) showRequeued(cmd *cobra.Command, dryRun bool, res inbox.RequeueResult, failed bool) error {
	for i := range res.Refused {
		l := &res.Refused[i]
		fmt.Fprintf(cmd.ErrOrStderr(), "amends: %s stays: its body was left out; it was published at %d/%d of %s\n",
			placeOf(l), l.OriginPartition, l.OriginOffset, printable(l.Message.Topic))
	}
	if a.out.json() {
		return printJSON(cmd.OutOrStdout(), struct {
			Requeued int  `json:"requeued"`
			Left     int  `json:"left"`
			DryRun   bool `json:"dryRun,omitempty"`
		}{res.Requeued, res.Left, dryRun})
	}
	did := "done"
	switch {
	case dryRun:
		did = "would be done; nothing was"
	case failed:
		did = "then it failed"
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "requeue to %s: %d messages (%s)\n", printable(a.topic), res.Requeued, did)
	return err
}
