package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func newTxEvents() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "events GID",
		Short: "Show the audit trail of one transaction",
		Args:  oneGID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd.Context(), func(ctx context.Context, c *clients) error {
				events, err := fetchEvents(ctx, c.admin, args[0])
				if err != nil {
					return err
				}
				if a.out.json() {
					return printMessage(cmd.OutOrStdout(), &amendsv1.ListEventsResponse{Events: events})
				}
				t := newTable("SEQ", "TIME", "TYPE", "DETAIL")
				for _, e := range events {
					t.row(eventRow(e)...)
				}
				return t.print(cmd.OutOrStdout())
			})
		},
	}
	a.flags(cmd)
	return cmd
}

func fetchEvents(ctx context.Context, admin amendsv1.AdminServiceClient, gid string) ([]*amendsv1.Event, error) {
	var events []*amendsv1.Event
	token := ""
	for {
		resp, err := admin.ListEvents(ctx, &amendsv1.ListEventsRequest{Gid: gid, PageSize: maxPage, PageToken: token})
		if err != nil {
			return nil, err
		}
		events = append(events, resp.GetEvents()...)
		if token = resp.GetNextPageToken(); token == "" {
			return events, nil
		}
	}
}

func eventRow(e *amendsv1.Event) []cell {
	return []cell{
		text(strconv.FormatInt(e.GetSeq(), 10)), text(when(e.GetTime())), text(e.GetType()), text(string(e.GetData())),
	}
}
