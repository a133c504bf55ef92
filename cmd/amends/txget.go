package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func newTxGet() *cobra.Command {
	var a asking
	var full bool
	cmd := &cobra.Command{
		Use:   "get GID",
		Short: "Show one transaction with its branches",
		Args:  oneGID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askOnce(cmd.Context(), func(ctx context.Context, admin amendsv1.AdminServiceClient) error {
				view := amendsv1.TransactionView_TRANSACTION_VIEW_BASIC
				if full {
					view = amendsv1.TransactionView_TRANSACTION_VIEW_FULL
				}
				resp, err := admin.GetTransaction(ctx, &amendsv1.GetTransactionRequest{Gid: args[0], View: view})
				if err != nil {
					return err
				}
				if a.out.json() {
					return printMessage(cmd.OutOrStdout(), resp.GetTransaction())
				}
				return printTransaction(cmd.OutOrStdout(), resp.GetTransaction(), full)
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&full, "full", false, "with requests and replies")
	return cmd
}

func printTransaction(w io.Writer, tx *amendsv1.Transaction, full bool) error {
	colour := coloured(w)
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-9s %s\n", name+":", printable(value))
		}
	}
	field("gid", tx.GetGid())
	field("kind", word(tx.GetKind().String(), "KIND_"))
	field("name", tx.GetName())
	fmt.Fprintf(w, "%-9s %s\n", "state:", painted(state(tx), colour))
	field("cause", cause(tx.GetCause()))
	field("labels", labels(tx.GetLabels()))
	field("created", when(tx.GetCreateTime()))
	field("updated", when(tx.GetUpdateTime()))
	field("finished", when(tx.GetFinishTime()))
	field("deadline", when(tx.GetDeadline()))
	field("next", when(tx.GetNextTime()))
	fmt.Fprintln(w)
	headings := []string{"BRANCH", "ACTION", "PHASE", "ATTEMPT", "AFTER", "ERROR"}
	if full {
		headings = append(headings, "REQUEST", "REPLY")
	}
	t := newTable(headings...)
	for _, b := range tx.GetBranches() {
		row := []cell{
			text(b.GetName()), text(b.GetAction()), phase(b.GetPhase()), text(strconv.Itoa(int(b.GetAttempt()))),
			text(strings.Join(b.GetAfter(), ",")), text(b.GetError()),
		}
		if full {
			row = append(row, text(string(b.GetRequest())), text(string(b.GetReply())))
		}
		t.row(row...)
	}
	return t.print(w)
}

// phase is where a branch stands, in the colour of how it does.
func phase(p string) cell {
	switch p {
	case "DONE", "TRIED", "CONFIRMED":
		return cell{p, green}
	case "REFUSED", "UNDOING", "UNDONE", "CANCELLING", "CANCELLED":
		return cell{p, yellow}
	case "STUCK":
		return cell{p, red}
	}
	return text(p)
}

func labels(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return strings.Join(parts, " ")
}
