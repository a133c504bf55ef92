package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func newBulkGet() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show one bulk and how far it is", Args: oneBulk,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
				resp, err := c.operator.GetBulk(ctx, &amendsv1.GetBulkRequest{Id: args[0]})
				if err != nil {
					return err
				}
				return a.printBulk(cmd.OutOrStdout(), resp.GetBulk())
			})
		},
	}
	a.flags(cmd)
	return cmd
}

func newBulkCancel() *cobra.Command {
	var a asking
	var reason string
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "Stop a bulk; what it has done stays done", Args: oneBulk,
		RunE: func(cmd *cobra.Command, args []string) error {
			why, err := personAt(cmd).reason(cmd.Context(), reason)
			if err != nil {
				return err
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
				resp, err := c.operator.CancelBulk(ctx, &amendsv1.CancelBulkRequest{Id: args[0], Reason: why})
				if err != nil {
					return err
				}
				return a.printBulk(cmd.OutOrStdout(), resp.GetBulk())
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail (asked for on a terminal)")
	return cmd
}

func newBulkList() *cobra.Command {
	var a asking
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List bulks, newest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit <= 0 {
				return usagef("--limit is %d: want 1 or more", limit)
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
				bulks, more, err := fetchBulks(ctx, c.operator, limit)
				if err != nil {
					return err
				}
				if a.out.json() {
					return printMessage(cmd.OutOrStdout(), &amendsv1.ListBulksResponse{Bulks: bulks})
				}
				if more {
					fmt.Fprintf(cmd.ErrOrStderr(), "There are more: give --limit above %d\n", limit)
				}
				return printBulks(cmd.OutOrStdout(), bulks)
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this many")
	return cmd
}

func fetchBulks(ctx context.Context, c amendsv1.OperatorServiceClient, limit int) (bulks []*amendsv1.Bulk, more bool, err error) {
	for token := ""; ; {
		resp, err := c.ListBulks(ctx, &amendsv1.ListBulksRequest{PageSize: int32(min(limit-len(bulks), maxPage)), PageToken: token})
		if err != nil {
			return nil, false, err
		}
		bulks = append(bulks, resp.GetBulks()...)
		if token = resp.GetNextPageToken(); token == "" || len(bulks) >= limit {
			return bulks, token != "", nil
		}
	}
}

func printBulks(w io.Writer, bulks []*amendsv1.Bulk) error {
	t := newTable("ID", "VERB", "STATE", "ACTED", "SKIPPED", "FAILED", "CREATED", "ACTOR", "REASON", "FILTER")
	count := func(n int64) cell { return text(strconv.FormatInt(n, 10)) }
	for _, b := range bulks {
		t.row(text(b.GetId()), text(verbName(b.GetVerb())), bulkState(b), count(b.GetActed()), count(b.GetSkipped()),
			count(b.GetFailed()), text(when(b.GetCreateTime())), text(b.GetActor()), text(b.GetReason()), text(b.GetFilter()))
	}
	return t.print(w)
}

// printBulk shows one bulk with all that is known of it.
func (a *asking) printBulk(w io.Writer, b *amendsv1.Bulk) error {
	if a.out.json() {
		return printMessage(w, b)
	}
	for _, f := range []struct{ name, value string }{
		{"id", b.GetId()}, {"verb", verbName(b.GetVerb())}, {"filter", b.GetFilter()},
		{"rate", fmt.Sprintf("%v per second", b.GetRate())}, {"reason", b.GetReason()}, {"actor", b.GetActor()},
		{"state", painted(bulkState(b), coloured(w))}, {"done", progress(b)}, {"last error", b.GetLastError()},
		{"created", when(b.GetCreateTime())}, {"updated", when(b.GetUpdateTime())}, {"finished", when(b.GetFinishTime())},
	} {
		value := f.value
		if f.name != "state" { // which is ours, and may be coloured
			value = printable(value)
		}
		if value == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-11s %s\n", f.name+":", value); err != nil {
			return err
		}
	}
	return nil
}

func bulkState(b *amendsv1.Bulk) cell {
	c := cell{text: word(b.GetState().String(), "BULK_STATE_")}
	switch {
	case b.GetState() == amendsv1.BulkState_BULK_STATE_CANCELLED, b.GetFailed() > 0:
		c.paint = red
	case b.GetState() == amendsv1.BulkState_BULK_STATE_DONE:
		c.paint = green
	}
	return c
}

func progress(b *amendsv1.Bulk) string {
	return fmt.Sprintf("%d acted upon, %d skipped, %d failed", b.GetActed(), b.GetSkipped(), b.GetFailed())
}

func oneBulk(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("want one argument, the id of a bulk, got %d", len(args))
	}
	return nil
}
