package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// outboxActing is one act on an outbox.
type outboxActing struct {
	outboxAsking
	reason, requestID string
	dryRun, yes       bool
	topic, key        string
	at                string // a position
	warning           string // what a person has to confirm
}

// send sends an act.
type send func(context.Context, amendsv1.OutboxServiceClient) (*amendsv1.OutboxAct, error)

const aboutOutboxActs = `

A request that nobody answers is sent again with the same --request-id, which has
it done once only.`

// flags adds what every act has.
func (a *outboxActing) flags(cmd *cobra.Command) {
	cmd.Long += aboutOutboxActs
	a.outboxAsking.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&a.reason, "reason", "", "why, for the record (asked for on a terminal)")
	f.StringVar(&a.requestID, "request-id", "", "key by which a repeated request is known (default: a random one)")
	f.BoolVar(&a.dryRun, "dry-run", false, "only say what it would do")
}

func (a *outboxActing) run(cmd *cobra.Command, do send) (err error) {
	p := personAt(cmd)
	if a.dryRun && a.reason == "" {
		a.reason = "dry run" // which nobody will read
	} else if a.reason, err = p.reason(cmd.Context(), a.reason); err != nil {
		return err
	}
	if a.warning != "" && !a.yes && !a.dryRun {
		if err := p.confirm(cmd.Context(), a.warning, cmd.Name()); err != nil {
			return err
		}
	}
	if a.requestID == "" {
		a.requestID = rand.Text()
	}
	doubt := false
	err = a.ask(cmd, func(ctx context.Context, c amendsv1.OutboxServiceClient) (err error) {
		var act *amendsv1.OutboxAct
		if doubt, err = resend(ctx, func() (err error) { act, err = do(ctx, c); return err }); err != nil {
			return err
		}
		return a.show(cmd, act)
	})
	if doubt && !a.dryRun {
		return fmt.Errorf("%w; it was done or it was not: to make sure, repeat it with --request-id %s", err, a.requestID)
	}
	return err
}

func (a *outboxActing) show(cmd *cobra.Command, act *amendsv1.OutboxAct) error {
	w := cmd.OutOrStdout()
	if act.GetMore() {
		fmt.Fprintln(cmd.ErrOrStderr(), "amends: there are more: repeat it")
	}
	if a.out.json() {
		return printMessage(w, act)
	}
	did := "done"
	if a.dryRun {
		did = "would be done; nothing was"
	}
	_, err := fmt.Fprintf(w, "%s %s: %d messages (%s)\n", outboxVerb(act), printable(act.GetTarget()), act.GetMessages(), did)
	return err
}

func newOutboxSkip() *cobra.Command {
	var a outboxActing
	cmd := &cobra.Command{
		Use:   "skip POSITION",
		Short: "Move a waiting message to the dead letters",
		Long: `Move a waiting message to the dead letters, so that what is behind it can be
published. Its position is shown by 'outbox messages' and 'outbox blocked'.`,
		Args: oneOf("the position of a message"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd, func(ctx context.Context, c amendsv1.OutboxServiceClient) (*amendsv1.OutboxAct, error) {
				r, err := c.SkipMessage(ctx, &amendsv1.SkipMessageRequest{
					Position: args[0], Reason: a.reason, RequestId: a.requestID, ValidateOnly: a.dryRun,
				})
				return r.GetAct(), err
			})
		},
	}
	a.flags(cmd)
	return cmd
}

func newOutboxPark() *cobra.Command {
	var a outboxActing
	cmd := &cobra.Command{
		Use:   "park [KEY]",
		Short: "Move every waiting message of a key to the dead letters",
		Long: `Move every waiting message of a key to the dead letters, in order; what is written
later is published. 'outbox dead replay --key KEY' brings them back.`,
		Example: `  amends outbox park order-17 --reason 'its first message is over the broker''s limit'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key := ""
			if len(args) > 0 {
				key = args[0]
			}
			return a.run(cmd, func(ctx context.Context, c amendsv1.OutboxServiceClient) (*amendsv1.OutboxAct, error) {
				r, err := c.ParkKey(ctx, &amendsv1.ParkKeyRequest{
					Key: key, Position: a.at, Reason: a.reason, RequestId: a.requestID, ValidateOnly: a.dryRun,
				})
				return r.GetAct(), err
			})
		},
	}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 1 || (len(args) == 1) == (a.at != "") {
			return usagef("want one argument, the key, or --position of a message with it")
		}
		return nil
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&a.at, "position", "", "the key of the message at this `position`")
	return cmd
}

func newDeadReplay() *cobra.Command {
	var a outboxActing
	return a.onDead("replay", "Move dead letters back into the outbox",
		`Move dead letters back into the outbox, oldest first: those given, or the oldest
10,000 of a topic, a key or both. They are published behind what waits there
already, also of their own keys.`,
		func(ctx context.Context, c amendsv1.OutboxServiceClient, numbers []int64) (*amendsv1.OutboxAct, error) {
			r, err := c.ReplayDeadLetters(ctx, &amendsv1.ReplayDeadLettersRequest{
				Numbers: numbers, Topic: a.topic, Key: a.key, Reason: a.reason, RequestId: a.requestID, ValidateOnly: a.dryRun,
			})
			return r.GetAct(), err
		})
}

func newDeadDiscard() *cobra.Command {
	var a outboxActing
	return a.onDead("discard", "Delete dead letters for good",
		`Delete dead letters for good: those given, or the oldest 10,000 of a topic, a key
or both. Of what is deleted, the record keeps the ids of messages only.`,
		func(ctx context.Context, c amendsv1.OutboxServiceClient, numbers []int64) (*amendsv1.OutboxAct, error) {
			r, err := c.DiscardDeadLetters(ctx, &amendsv1.DiscardDeadLettersRequest{
				Numbers: numbers, Topic: a.topic, Key: a.key, Reason: a.reason, RequestId: a.requestID, ValidateOnly: a.dryRun,
			})
			return r.GetAct(), err
		})
}

// onDead makes a command that acts on dead letters.
func (a *outboxActing) onDead(name, short, long string,
	do func(context.Context, amendsv1.OutboxServiceClient, []int64) (*amendsv1.OutboxAct, error),
) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " [NUMBER...]", Short: short, Long: long,
		Example: "  amends outbox dead " + name + " 17 18 --reason 'ticket 7'\n" +
			"  amends outbox dead " + name + " --topic orders --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			var numbers []int64
			for _, arg := range args {
				n, err := strconv.ParseInt(arg, 10, 64)
				if err != nil {
					return usagef("%q is not the number of a dead letter", arg)
				}
				numbers = append(numbers, n)
			}
			if (len(numbers) > 0) == (a.topic+a.key != "") {
				return usagef("say which dead letters: give their numbers, or --topic or --key")
			}
			return a.run(cmd, func(ctx context.Context, c amendsv1.OutboxServiceClient) (*amendsv1.OutboxAct, error) {
				return do(ctx, c, numbers)
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().StringVar(&a.topic, "topic", "", "those of this topic")
	cmd.Flags().StringVar(&a.key, "key", "", "those of this key")
	if name == "discard" {
		a.warning = "Discarding dead letters deletes them for good"
		cmd.Flags().BoolVar(&a.yes, "yes", false, "don't ask for the word to be typed")
	}
	return cmd
}
