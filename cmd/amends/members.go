package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func printMembers(w io.Writer, m proto.Message) error {
	cluster := m.(*amendsv1.GetClusterResponse)
	t := newTable("COORDINATOR", "SHARDS", "STATE", "LAG", "ADDRESS", "VERSION", "SINCE", "LEASE UNTIL")
	now := time.Now()
	for _, member := range cluster.GetMembers() {
		name := member.GetName()
		if member.GetSelf() {
			name += " (answers)"
		}
		t.row(text(name), text(strconv.Itoa(int(member.GetShards()))), stateOf(member), lagOf(member, now), text(orNone(member.GetAddress())),
			text(orNone(member.GetVersion())), text(when(member.GetStartTime())), text(when(member.GetLeaseExpireTime())))
	}
	if err := t.print(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d shards, of which nobody owns %d\n", cluster.GetShards(), cluster.GetUnownedShards())
	return err
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func stateOf(m *amendsv1.Member) cell {
	switch {
	case m.GetDraining() && m.GetShards() > 0:
		return cell{"draining", yellow}
	case m.GetDraining():
		return cell{"drained", yellow}
	case m.GetStartTime() == nil && !m.GetSelf(): // it has leases, and says nothing any more
		return cell{"gone", red}
	}
	return text("active")
}

// lagOf is how long the oldest transaction waits for its turn.
func lagOf(m *amendsv1.Member, now time.Time) cell {
	if m.GetOldestDueTime() == nil {
		return text("-")
	}
	lag := max(0, now.Sub(m.GetOldestDueTime().AsTime()))
	c := text(lag.Round(time.Millisecond).String())
	if lag > time.Minute {
		c.paint = red
	}
	return c
}

// draining is `amends cluster drain` or undrain.
type draining struct {
	asking
	reason string
	dryRun bool
}

// drainRequest sends one of the two requests.
type drainRequest func(ctx context.Context, c amendsv1.ClusterServiceClient, name string, d *draining) error

func newDrain() *cobra.Command {
	return drainCommand("drain", "Have a coordinator give its shards to the others and take none",
		`Have a coordinator give its shards to the others and take none, before its machine
is worked on: no request fails. It goes on serving, by passing requests on, until
it is ended, and takes shards again after 'amends cluster undrain' or a restart.`,
		func(ctx context.Context, c amendsv1.ClusterServiceClient, name string, d *draining) error {
			_, err := c.DrainMember(ctx, &amendsv1.DrainMemberRequest{Name: name, Reason: d.reason, ValidateOnly: d.dryRun})
			return err
		})
}

func newUndrain() *cobra.Command {
	return drainCommand("undrain", "Let a drained coordinator take shards again", `Let a drained coordinator take shards again.`,
		func(ctx context.Context, c amendsv1.ClusterServiceClient, name string, d *draining) error {
			_, err := c.UndrainMember(ctx, &amendsv1.UndrainMemberRequest{Name: name, Reason: d.reason, ValidateOnly: d.dryRun})
			return err
		})
}

func drainCommand(name, short, long string, send drainRequest) *cobra.Command {
	d := draining{}
	cmd := &cobra.Command{
		Use: name + " COORDINATOR", Short: short,
		Long: long + `

COORDINATOR is a name as 'amends cluster members' lists them, or the beginning of
one, if no other begins so. Any coordinator can be asked. The coordinators are
printed as they are afterwards.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("want one argument, the name of a coordinator, got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return d.run(cmd, args[0], send) },
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&d.reason, "reason", "", "why, for the coordinators' logs (asked for on a terminal)")
	cmd.Flags().BoolVar(&d.dryRun, "dry-run", false, "only say whether it could be done")
	return cmd
}

func (d *draining) run(cmd *cobra.Command, name string, send drainRequest) (err error) {
	if d.dryRun && d.reason == "" {
		d.reason = "dry run" // which nobody will read
	}
	if d.reason, err = personAt(cmd).reason(cmd.Context(), d.reason); err != nil {
		return err
	}
	return d.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
		whole, err := memberName(ctx, c.cluster, name)
		if err != nil {
			return err
		}
		if _, err := resend(ctx, func() error { return send(ctx, c.cluster, whole, d) }); err != nil {
			return err
		}
		if d.dryRun {
			fmt.Fprintln(cmd.ErrOrStderr(), "amends: it could be done; nothing was done")
		}
		after, err := fetchMembers(ctx, c.cluster)
		if err != nil {
			return err
		}
		if d.out.json() {
			return printMessage(cmd.OutOrStdout(), after)
		}
		return printMembers(cmd.OutOrStdout(), after)
	})
}

// memberName completes a name of which the beginning was given.
func memberName(ctx context.Context, c amendsv1.ClusterServiceClient, given string) (string, error) {
	all, err := c.ListMembers(ctx, &amendsv1.ListMembersRequest{})
	if err != nil {
		return "", err
	}
	var names, match []string
	for _, m := range all.GetMembers() {
		names = append(names, m.GetName())
		switch {
		case m.GetName() == given:
			return given, nil
		case strings.HasPrefix(m.GetName(), given):
			match = append(match, m.GetName())
		}
	}
	if len(match) == 1 && given != "" {
		return match[0], nil
	}
	return "", usagef("%d coordinators have a name that begins with %q: the names are %s", len(match), given, strings.Join(names, ", "))
}
