package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// part is something to know about a cluster.
type part struct {
	name, short string
	fetch       func(context.Context, amendsv1.ClusterServiceClient) (proto.Message, error)
	print       func(io.Writer, proto.Message) error
}

func parts() []part {
	return []part{
		{"overview", "Show the figures that tell whether all is well", fetchOverview, printOverview},
		{"members", "List the coordinators: where they are, how many shards each owns, how late it is", fetchMembers, printMembers},
		{"participants", "List the services that are connected, or that calls wait for", fetchParticipants, printParticipants},
	}
}

func newCluster() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Show how the coordinators and the services are, and drain coordinators",
		Long: `Show the figures that tell whether all is well, the coordinators with the shards
that each owns, and the services that are connected to the one that answers. Any
coordinator of a cluster can be asked.`,
		Args: group(&cobra.Command{}).Args,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.showParts(cmd, parts()...) },
	}
	a.flags(cmd)
	for _, p := range parts() {
		var a asking
		sub := &cobra.Command{
			Use: p.name, Short: p.short, Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.showParts(cmd, p) },
		}
		a.flags(sub)
		cmd.AddCommand(sub)
	}
	cmd.AddCommand(newDrain(), newUndrain(), newWhoAmI())
	return cmd
}

// showParts prints what it fetches; as JSON, one part is a message and several
// are an object of them by name.
func (a *asking) showParts(cmd *cobra.Command, all ...part) error {
	return a.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
		w, together := cmd.OutOrStdout(), map[string]json.RawMessage{}
		for i, p := range all {
			m, err := p.fetch(ctx, c.cluster)
			if err != nil {
				return err
			}
			switch {
			case a.out.json() && len(all) == 1:
				return printMessage(w, m)
			case a.out.json():
				if together[p.name], err = asJSON(m); err != nil {
					return err
				}
				continue
			case i > 0:
				fmt.Fprintln(w)
			}
			if err := p.print(w, m); err != nil {
				return err
			}
		}
		if !a.out.json() {
			return nil
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(together)
	})
}

func fetchOverview(ctx context.Context, c amendsv1.ClusterServiceClient) (proto.Message, error) {
	return c.GetOverview(ctx, &amendsv1.GetOverviewRequest{})
}

func fetchMembers(ctx context.Context, c amendsv1.ClusterServiceClient) (proto.Message, error) {
	return c.GetCluster(ctx, &amendsv1.GetClusterRequest{})
}

func fetchParticipants(ctx context.Context, c amendsv1.ClusterServiceClient) (proto.Message, error) {
	return c.ListParticipants(ctx, &amendsv1.ListParticipantsRequest{})
}

func printOverview(w io.Writer, m proto.Message) error {
	o := m.(*amendsv1.GetOverviewResponse)
	count := func(n int64, bad paint) cell {
		c := text(strconv.FormatInt(n, 10))
		if n > 0 {
			c.paint = bad
		}
		return c
	}
	t := newTable("RUNNING", "COMMITTING", "ROLLING BACK", "PAUSED", "STALLED", "PARKED", "STARTED/S", "COMMITTED/S", "ROLLED BACK/S")
	rate := func(r float64) cell { return text(strconv.FormatFloat(r, 'f', 1, 64)) }
	t.row(count(o.GetRunning(), plain), count(o.GetCommitting(), plain), count(o.GetRollingBack(), plain),
		count(o.GetPaused(), yellow), count(o.GetStalled(), red), count(o.GetParked(), red),
		rate(o.GetStartedRate()), rate(o.GetCommittedRate()), rate(o.GetRolledBackRate()))
	if err := t.print(w); err != nil {
		return err
	}
	if o.GetOldestGid() != "" {
		fmt.Fprintf(w, "Oldest unfinished: %s, since %s\n", printable(o.GetOldestGid()), when(o.GetOldestCreateTime()))
	}
	_, err := fmt.Fprintf(w, "Stalled means: has waited for a participant for longer than %v\n", o.GetStallAfter().AsDuration())
	return err
}

func printParticipants(w io.Writer, m proto.Message) error {
	t := newTable("SERVICE", "INSTANCES", "WAITING", "IN FLIGHT", "ACTIONS")
	for _, p := range m.(*amendsv1.ListParticipantsResponse).GetParticipants() {
		instances := text(strconv.Itoa(int(p.GetInstances())))
		if p.GetInstances() == 0 {
			instances.paint = red
		}
		t.row(text(p.GetService()), instances, text(strconv.Itoa(int(p.GetWaiting()))),
			text(strconv.Itoa(int(p.GetInFlight()))), text(strings.Join(p.GetActions(), " ")))
	}
	return t.print(w)
}

func newWhoAmI() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use: "whoami", Short: "Show who the coordinator takes you for, and what you may do", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.showParts(cmd, part{"whoami", "", fetchWhoAmI, printWhoAmI})
		},
	}
	a.flags(cmd)
	return cmd
}

func fetchWhoAmI(ctx context.Context, c amendsv1.ClusterServiceClient) (proto.Message, error) {
	return c.WhoAmI(ctx, &amendsv1.WhoAmIRequest{})
}

func printWhoAmI(w io.Writer, m proto.Message) error {
	me := m.(*amendsv1.WhoAmIResponse)
	var roles []string
	for _, r := range me.GetRoles() {
		roles = append(roles, strings.ReplaceAll(word(r.String(), "ROLE_"), "_", "-"))
	}
	t := newTable("SUBJECT", "NAMESPACE", "ROLES", "NAMESPACES", "SERVICES")
	t.row(text(me.GetSubject()), text(me.GetNamespace()), text(strings.Join(roles, ", ")),
		text(strings.Join(me.GetNamespaces(), ", ")), text(strings.Join(me.GetServices(), ", ")))
	if err := t.print(w); err != nil {
		return err
	}
	if !me.GetAuthenticated() {
		_, err := fmt.Fprintln(w, "This coordinator asks nobody who they are: everybody may do everything.")
		return err
	}
	return nil
}
