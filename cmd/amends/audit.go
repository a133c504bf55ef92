package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func newAudit() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "audit",
		Short: "Prove that nobody edited the audit trail, and export it",
		Long: `Each transaction has an audit trail: one event for its start, each answer of a
participant and each act of an operator. Each event holds the hash of the one
before it, and the transaction the hash of the last.`,
	})
	cmd.AddCommand(newAuditVerify(), newAuditExport())
	return cmd
}

// auditing is which trails a command reads.
type auditing struct {
	asking
	selection
	since string
}

func (a *auditing) flags(cmd *cobra.Command) {
	a.asking.flags(cmd)
	a.selection.flags(cmd)
	cmd.Flags().StringVar(&a.since, "since", "",
		"only transactions created since this `time`: 2026-11-01, 2026-11-01T08:00:00Z, or 24h ago as 24h")
}

// build makes one filter of the flags.
func (a *auditing) build() (string, error) {
	filter, err := a.selection.build()
	if err != nil || a.since == "" {
		return filter, err
	}
	since, err := moment(a.since, time.Now())
	if err != nil {
		return "", err
	}
	term := "create_time >= " + strconv.Quote(since.UTC().Format(time.RFC3339Nano))
	if filter == "" {
		return term, nil
	}
	return filter + " AND " + term, nil
}

// moment is a time as people write it: a date, a time, or a duration ago.
func moment(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, usagef("--since %q: want a date, a time as in RFC 3339, or a duration such as 24h", s)
}

// each calls fn with the trail of each transaction that the filter selects,
// newest first, as it was at one moment.
func (a *auditing) each(ctx context.Context, c *clients, filter string, fn func(*trail) error) error {
	for token := ""; ; {
		resp, err := c.admin.ListTransactions(ctx, &amendsv1.ListTransactionsRequest{
			PageSize: maxPage, PageToken: token, Filter: filter})
		if err != nil {
			return err
		}
		for _, tx := range resp.GetTransactions() {
			t, err := fetchTrail(ctx, c.admin, tx)
			switch {
			case errors.Is(amendsv1.FromError(err), amendsv1.ErrNotFound):
				continue // its retention ended meanwhile
			case err != nil:
				return err
			}
			if err := fn(t); err != nil {
				return err
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			return nil
		}
	}
}

// fetchTrail reads the trail of a transaction as it was at one moment: while it
// grows, what was read does not end with the head, and is read again. When the
// head has stood still meanwhile, the trail is what does not fit.
func fetchTrail(ctx context.Context, c amendsv1.AdminServiceClient, tx *amendsv1.Transaction) (*trail, error) {
	for {
		events, err := fetchEvents(ctx, c, tx.GetGid())
		if err != nil {
			return nil, err
		}
		t := trailOf(tx, events)
		if t.complete() {
			return t, nil
		}
		now, err := c.GetTransaction(ctx, &amendsv1.GetTransactionRequest{Gid: tx.GetGid()})
		if err != nil {
			return nil, err
		}
		if now := now.GetTransaction(); now.GetEventSeq() == tx.GetEventSeq() && bytes.Equal(now.GetEventHash(), tx.GetEventHash()) {
			return t, nil
		}
		tx = now.GetTransaction()
	}
}

func newAuditExport() *cobra.Command {
	var a auditing
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write audit trails as JSON Lines",
		Long: `Write audit trails to standard output as JSON Lines: one event a line, the events of
a transaction together and in order, newest transactions first. 'amends audit
verify --file' verifies such a file without a server; docs/audit.md describes it.
It exits with 1 when a trail is broken, after all that there is was written.
` + aboutFilters,
		Example: `  amends audit export --since 24h > audit.jsonl
  amends audit export --label order_id=A-17 > order.jsonl`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := a.build()
			if err != nil {
				return err
			}
			if a.out.json() {
				return usagef("--output is not for export: it always writes JSON Lines")
			}
			return a.export(cmd, filter)
		},
	}
	a.flags(cmd)
	_ = cmd.Flags().MarkHidden("output") // it is there
	return cmd
}

func (a *auditing) export(cmd *cobra.Command, filter string) error {
	w := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
	var sum findings
	err := a.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
		return a.each(ctx, c, filter, func(t *trail) error {
			sum.check(t)
			return t.write(w)
		})
	})
	if err = errors.Join(err, w.Flush()); err != nil {
		return fmt.Errorf("the export is not complete: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "amends: exported %d events of %d transactions\n", sum.Events, sum.Transactions)
	return sum.err()
}
