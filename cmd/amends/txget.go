package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func newTxGet() *cobra.Command {
	var a asking
	var full bool
	cmd := &cobra.Command{
		Use:   "get GID",
		Short: "Show one transaction with its branches",
		Long: `Show one transaction with its branches: how far the two lanes of each have come
(do and undo; of TCC try, confirm and cancel), with the number of attempts where
there was more than one, when it is tried again, and what an operator can do.`,
		Args: oneGID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
				return a.show(ctx, cmd.OutOrStdout(), c, args[0], full)
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&full, "full", false, "with requests and replies")
	return cmd
}

// show prints a transaction as it is now.
func (a *asking) show(ctx context.Context, w io.Writer, c *clients, gid string, full bool) error {
	view := amendsv1.TransactionView_TRANSACTION_VIEW_BASIC
	if full {
		view = amendsv1.TransactionView_TRANSACTION_VIEW_FULL
	}
	resp, err := c.admin.GetTransaction(ctx, &amendsv1.GetTransactionRequest{Gid: gid, View: view})
	if err != nil {
		return err
	}
	if a.out.json() {
		return printMessage(w, resp.GetTransaction())
	}
	events, err := fetchEvents(ctx, c.admin, gid)
	if err != nil {
		return err
	}
	return printTransaction(w, resp.GetTransaction(), events, full)
}

func printTransaction(w io.Writer, tx *amendsv1.Transaction, events []*amendsv1.Event, full bool) error {
	colour := coloured(w)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", name+":", printable(value))
		}
	}
	field("gid", tx.GetGid())
	field("namespace", tx.GetNamespace())
	field("kind", word(tx.GetKind().String(), "KIND_"))
	field("name", tx.GetName())
	fmt.Fprintf(w, "%-10s %s\n", "state:", painted(state(tx), colour))
	field("waits for", tx.GetWaitsFor())
	field("cause", cause(tx.GetCause()))
	field("labels", labels(tx.GetLabels()))
	field("created", when(tx.GetCreateTime()))
	field("updated", when(tx.GetUpdateTime()))
	field("finished", when(tx.GetFinishTime()))
	field("deadline", when(tx.GetDeadline()))
	field("next", due(tx.GetNextTime()))
	field("etag", tx.GetEtag())
	field("legal now", verbNames(tx.GetVerbs()))
	fmt.Fprintln(w)
	t := branchTable(tx, events, full)
	return t.print(w)
}

// branchTable is the tree of a transaction's branches with their lanes.
func branchTable(tx *amendsv1.Transaction, events []*amendsv1.Event, full bool) *table {
	ops := lanesOf(tx.GetKind())
	headings := []string{"BRANCH", "ACTION", "AFTER"}
	for _, op := range ops {
		headings = append(headings, strings.ToUpper(op))
	}
	headings = append(headings, "NEXT RETRY", "LEGAL NOW", "LAST ERROR")
	if full {
		headings = append(headings, "REQUEST", "REPLY")
	}
	t := newTable(headings...)
	happened := historyOf(events)
	for i, b := range tx.GetBranches() {
		twig := "├─ "
		if i == len(tx.GetBranches())-1 {
			twig = "└─ "
		}
		row := []cell{text(twig + b.GetName()), text(b.GetAction()), text(strings.Join(b.GetAfter(), ","))}
		for _, op := range ops {
			row = append(row, lane(op, b, happened[b.GetName()]))
		}
		row = append(row, text(due(b.GetNextTime())), text(verbNames(b.GetVerbs())), text(b.GetError()))
		if full {
			row = append(row, text(string(b.GetRequest())), text(string(b.GetReply())))
		}
		t.row(row...)
	}
	return t
}

// due is a time to come, and how far away it is.
func due(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	left := time.Until(at.AsTime()).Round(100 * time.Millisecond)
	if left <= 0 {
		return when(at) + " (now)"
	}
	return fmt.Sprintf("%s (in %v)", when(at), left)
}

func labels(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, " ")
}
