package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// bulkVerbs are what can be done to many transactions at once.
var bulkVerbs = [...]amendsv1.Verb{
	amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_ABORT, amendsv1.Verb_VERB_PAUSE,
	amendsv1.Verb_VERB_RESUME, amendsv1.Verb_VERB_ABANDON,
}

// bulkPoll is how often a bulk that is waited for is looked at.
const bulkPoll = 500 * time.Millisecond

func newBulk() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "bulk",
		Short: "Act on every transaction that a filter selects",
		Long: `Act on every transaction that a filter selects, at a rate. The coordinators carry a
bulk out by themselves: this program need not wait for it, and another coordinator
goes on with it when one dies.

After an outage of a service, call everything that waits for it at once:

  amends bulk start retry --participant accounts --reason 'accounts is back'`,
	})
	cmd.AddCommand(newBulkStart(), newBulkGet(), newBulkList(), newBulkCancel())
	return cmd
}

// bulkStart is what starts a bulk.
type bulkStart struct {
	asking
	selection
	rate              float64
	reason, requestID string
	dryRun, wait, yes bool
}

func newBulkStart() *cobra.Command {
	var b bulkStart
	cmd := &cobra.Command{
		Use:       "start VERB",
		ValidArgs: strings.Split(verbNames(bulkVerbs[:]), ", "),
		Short:     "Start a bulk: retry, abort, pause, resume or abandon many",
		Long: `Start a bulk: retry, abort, pause, resume or abandon every transaction that a filter
selects. Those for which the verb is not legal are counted as skipped.
` + aboutFilters,
		Example: `  amends bulk start retry --participant accounts --reason 'accounts is back'
  amends bulk start abort --filter 'name = "transfer"' --unfinished --reason 'recalled' --dry-run
  amends bulk start retry --stalled --rate 20 --reason 'after the outage' --wait`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("want one argument, the verb: %s", verbNames(bulkVerbs[:]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return b.run(cmd, args[0]) },
	}
	b.asking.flags(cmd)
	b.selection.flags(cmd)
	f := cmd.Flags()
	f.Float64Var(&b.rate, "rate", 50, "at most this many transactions per second, up to 1000")
	f.StringVar(&b.reason, "reason", "", "why, for the audit trail (asked for on a terminal)")
	f.StringVar(&b.requestID, "request-id", "", "the bulk's id, by which a repeated start is known (default: a random one)")
	f.BoolVar(&b.dryRun, "dry-run", false, "only say how many the filter selects")
	f.BoolVar(&b.wait, "wait", false, "wait for its end; exit with 1 if it failed for some or was cancelled")
	f.BoolVar(&b.yes, "yes", false, "of abandon: don't ask for the word to be typed")
	return cmd
}

func (b *bulkStart) run(cmd *cobra.Command, name string) error {
	req, err := b.request(name)
	if err != nil {
		return err
	}
	ctx, p := cmd.Context(), personAt(cmd)
	switch {
	case b.dryRun && b.reason == "":
		req.Reason = "dry run" // which nobody will read
	default:
		if req.Reason, err = p.reason(ctx, b.reason); err != nil {
			return err
		}
	}
	if req.Verb == amendsv1.Verb_VERB_ABANDON && !b.yes && !b.dryRun {
		if err := p.confirm(ctx, "Abandoning ends transactions as they stand, and nothing undoes their effects", name); err != nil {
			return err
		}
	}
	doubt := false
	err = b.ask(ctx, func(ctx context.Context, c *clients) error {
		var resp *amendsv1.StartBulkResponse
		doubt, err = resend(ctx, func() (err error) {
			resp, err = c.operator.StartBulk(ctx, req)
			return err
		})
		if err != nil {
			return err
		}
		return b.started(cmd, c, resp.GetBulk())
	})
	if doubt && !b.dryRun {
		return fmt.Errorf("%w; it was started or it was not: to make sure, repeat it with --request-id %s", err, req.RequestId)
	}
	return err
}

// request is what the flags ask for; its reason is still missing.
func (b *bulkStart) request(name string) (*amendsv1.StartBulkRequest, error) {
	verb := amendsv1.Verb_VERB_UNSPECIFIED
	for _, v := range bulkVerbs {
		if verbName(v) == name {
			verb = v
		}
	}
	filter, err := b.build()
	switch {
	case verb == amendsv1.Verb_VERB_UNSPECIFIED:
		return nil, usagef("%q cannot be done in bulk: want one of %s", name, verbNames(bulkVerbs[:]))
	case err != nil:
		return nil, err
	case filter == "":
		return nil, usagef("say which transactions: give --filter or one of the flags that add to it; " +
			"--unfinished is all that can be acted on")
	case !(b.rate > 0 && b.rate <= 1000):
		return nil, usagef("--rate is %v: want more than 0 and at most 1000", b.rate)
	}
	if b.requestID == "" {
		b.requestID = strings.ToLower(rand.Text())
	}
	return &amendsv1.StartBulkRequest{
		Verb: verb, Filter: filter, RequestId: b.requestID, ValidateOnly: b.dryRun, Rate: b.rate,
	}, nil
}

// started shows a bulk that has begun, and its end if that is waited for.
func (b *bulkStart) started(cmd *cobra.Command, c *clients, bulk *amendsv1.Bulk) error {
	if b.dryRun {
		fmt.Fprintf(cmd.ErrOrStderr(), "amends: the filter selects %d transactions now; nothing was done\n", bulk.GetActed())
		if b.out.json() {
			return printMessage(cmd.OutOrStdout(), bulk)
		}
		return nil
	}
	if !b.wait {
		return b.printBulk(cmd.OutOrStdout(), bulk)
	}
	bulk, err := b.await(cmd, c, bulk)
	if err != nil {
		return err
	}
	if err := b.printBulk(cmd.OutOrStdout(), bulk); err != nil {
		return err
	}
	switch {
	case bulk.GetState() == amendsv1.BulkState_BULK_STATE_CANCELLED:
		return errors.New("the bulk was cancelled")
	case bulk.GetFailed() > 0:
		return fmt.Errorf("%d transactions could not be acted upon; the last because: %s", bulk.GetFailed(), bulk.GetLastError())
	}
	return nil
}

// await polls until a bulk has ended. A coordinator that is away for a moment is
// asked again.
func (b *bulkStart) await(cmd *cobra.Command, c *clients, bulk *amendsv1.Bulk) (*amendsv1.Bulk, error) {
	ctx, id, told := cmd.Context(), bulk.GetId(), int64(-1)
	for bulk.GetState() == amendsv1.BulkState_BULK_STATE_RUNNING {
		if sum := bulk.GetActed() + bulk.GetSkipped() + bulk.GetFailed(); sum != told {
			told = sum
			fmt.Fprintf(cmd.ErrOrStderr(), "amends: %s: %s\n", id, progress(bulk))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("stopped waiting; the bulk goes on: amends bulk get %s, or amends bulk cancel %s", id, id)
		case <-time.After(bulkPoll):
		}
		_, err := resend(ctx, func() error {
			resp, err := c.operator.GetBulk(ctx, &amendsv1.GetBulkRequest{Id: id})
			if err == nil {
				bulk = resp.GetBulk()
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return bulk, nil
}
