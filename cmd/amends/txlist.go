package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// maxPage is the most that one request returns.
const maxPage = 1000

type listing struct {
	asking
	selection
	page  string
	limit int
}

func newTxList() *cobra.Command {
	var l listing
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List transactions, newest first",
		Long: `List transactions, newest first.

` + aboutFilters,
		Example: `  amends tx list --stalled
  amends tx list --state parked --label order_id=A-17
  amends tx list --filter 'state = "ROLLING_BACK" AND name = "transfer"'
  amends tx list --filter 'create_time >= "2026-11-01T00:00:00Z" AND labels.order_id = "A-17"' --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if l.limit <= 0 {
				return usagef("--limit is %d: want 1 or more", l.limit)
			}
			filter, err := l.build()
			if err != nil {
				return err
			}
			return l.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
				txs, next, err := l.fetch(ctx, c.admin, filter)
				if err != nil {
					return err
				}
				return l.print(cmd, txs, next)
			})
		},
	}
	l.asking.flags(cmd)
	l.selection.flags(cmd)
	cmd.Flags().IntVar(&l.limit, "limit", 50, "at most this many")
	cmd.Flags().StringVar(&l.page, "page-token", "", "go on after an earlier list with the same filter")
	return cmd
}

// fetch reads pages until the limit or the end, and returns where to go on.
func (l *listing) fetch(ctx context.Context, admin amendsv1.AdminServiceClient, filter string) (
	[]*amendsv1.Transaction, string, error) {
	var txs []*amendsv1.Transaction
	token := l.page
	for {
		resp, err := admin.ListTransactions(ctx, &amendsv1.ListTransactionsRequest{
			PageSize: int32(min(l.limit-len(txs), maxPage)), PageToken: token, Filter: filter,
		})
		if err != nil {
			return nil, "", err
		}
		txs = append(txs, resp.GetTransactions()...)
		token = resp.GetNextPageToken()
		if token == "" || len(txs) >= l.limit {
			return txs, token, nil
		}
	}
}

func (l *listing) print(cmd *cobra.Command, txs []*amendsv1.Transaction, next string) error {
	if l.out.json() {
		return printMessage(cmd.OutOrStdout(), &amendsv1.ListTransactionsResponse{Transactions: txs, NextPageToken: next})
	}
	t := newTable("GID", "STATE", "KIND", "NAME", "CREATED", "UPDATED", "WAITS FOR", "CAUSE")
	for _, tx := range txs {
		t.row(text(tx.GetGid()), state(tx), text(word(tx.GetKind().String(), "KIND_")), text(tx.GetName()),
			text(when(tx.GetCreateTime())), text(when(tx.GetUpdateTime())), text(tx.GetWaitsFor()), text(cause(tx.GetCause())))
	}
	if err := t.print(cmd.OutOrStdout()); err != nil {
		return err
	}
	if next != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "There are more: give --limit above %d, or --page-token %s\n", l.limit, next)
	}
	return nil
}

// state is a transaction's state in the colour of how it does.
func state(tx *amendsv1.Transaction) cell {
	c := cell{text: strings.TrimPrefix(tx.GetState().String(), "STATE_")}
	switch tx.GetState() {
	case amendsv1.State_STATE_COMMITTED:
		c.paint = green
	case amendsv1.State_STATE_ROLLING_BACK, amendsv1.State_STATE_ROLLED_BACK:
		c.paint = yellow
	case amendsv1.State_STATE_PARKED, amendsv1.State_STATE_ABANDONED:
		c.paint = red
	}
	if tx.GetPaused() {
		c.text += " (paused)"
	}
	if tx.GetStalled() {
		c.text, c.paint = c.text+" (stalled)", red
	}
	return c
}
