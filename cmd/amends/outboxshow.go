package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func newOutboxDepth() *cobra.Command {
	var o outboxAsking
	cmd := &cobra.Command{
		Use:   "depth",
		Short: "Show how full the outbox is, by topic and partition",
		Long: `Show how many messages wait, how old the oldest is, by topic and partition, and
which relay has each partition. DELAYED are those of them that wait for their time,
PARKED those dead letters whose key stands still. It reads every waiting row once.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.ask(cmd, func(ctx context.Context, c amendsv1.OutboxServiceClient) error {
				resp, err := c.GetOutbox(ctx, &amendsv1.GetOutboxRequest{})
				switch {
				case err != nil:
					return err
				case o.out.json():
					return printMessage(cmd.OutOrStdout(), resp)
				}
				return printDepth(cmd.OutOrStdout(), resp)
			})
		},
	}
	o.flags(cmd)
	return cmd
}

func printDepth(w io.Writer, s *amendsv1.GetOutboxResponse) error {
	bad := func(n int64) cell {
		c := number(n)
		if n > 0 {
			c.paint = red
		}
		return c
	}
	t := newTable("MESSAGES", "DELAYED", "OLDEST", "DEAD LETTERS", "PARKED", "BLOCKED KEYS")
	t.row(number(s.GetMessages()), number(s.GetDelayedMessages()), span(s.GetOldestAge()), bad(s.GetDeadLetters()),
		bad(s.GetParkedMessages()), bad(s.GetBlockedKeys()))
	if err := t.print(w); err != nil {
		return err
	}
	if len(s.GetTopics()) > 0 {
		t = newTable("TOPIC", "MESSAGES", "OLDEST")
		for _, topic := range s.GetTopics() {
			t.row(text(topic.GetTopic()), number(topic.GetMessages()), span(topic.GetOldestAge()))
		}
		fmt.Fprintln(w)
		if err := t.print(w); err != nil {
			return err
		}
	}
	t = newTable("PARTITION", "MESSAGES", "OLDEST", "RELAY", "LEASE")
	for _, p := range s.GetPartitions() {
		lease := span(p.GetLeaseLeft())
		if p.GetLeaseLeft().AsDuration() <= 0 {
			lease = cell{"nobody has it", red}
		}
		t.row(number(int64(p.GetPartition())), number(p.GetMessages()), span(p.GetOldestAge()), text(p.GetOwner()), lease)
	}
	fmt.Fprintln(w)
	return t.print(w)
}

func newDeadGet() *cobra.Command {
	var o outboxAsking
	var body bool
	cmd := &cobra.Command{
		Use:   "get NUMBER",
		Short: "Show one dead letter whole",
		Args:  oneOf("the number of a dead letter"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return usagef("%q is not the number of a dead letter", args[0])
			}
			return o.ask(cmd, func(ctx context.Context, c amendsv1.OutboxServiceClient) error {
				resp, err := c.GetDeadLetter(ctx, &amendsv1.GetDeadLetterRequest{Number: n})
				w, d := cmd.OutOrStdout(), resp.GetDeadLetter()
				switch {
				case err != nil:
					return err
				case body:
					_, err = w.Write(d.GetBody())
					return err
				case o.out.json():
					return printMessage(w, d)
				}
				return printDead(w, d)
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&body, "body", false, "write the body as it is, and nothing else")
	return cmd
}

func printDead(w io.Writer, d *amendsv1.DeadLetter) error {
	type field struct{ name, value string }
	fields := []field{
		{"number", strconv.FormatInt(d.GetNumber(), 10)}, {"topic", d.GetTopic()}, {"key", d.GetKey()}, {"id", d.GetId()},
		{"created", when(d.GetCreateTime())}, {"failed", when(d.GetFailTime())}, {"attempts", strconv.Itoa(int(d.GetAttempts()))},
		{"error", d.GetError()},
	}
	for _, name := range slices.Sorted(maps.Keys(d.GetHeaders())) {
		fields = append(fields, field{"header", name + ": " + d.GetHeaders()[name]})
	}
	fields = append(fields, field{"bytes", strconv.FormatInt(d.GetSize(), 10)}, field{"body", string(d.GetBody())})
	for _, f := range fields {
		if f.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-10s %s\n", f.name+":", printable(f.value)); err != nil {
			return err
		}
	}
	return nil
}

// oneOf takes exactly one argument.
func oneOf(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("want one argument, %s, got %d", what, len(args))
		}
		return nil
	}
}
