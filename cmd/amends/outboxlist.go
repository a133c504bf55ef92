package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// outboxListing is a list of something in an outbox.
type outboxListing struct {
	outboxAsking
	topic, key, page string
	limit            int
}

// outboxClient is the API of an outbox.
type outboxClient = amendsv1.OutboxServiceClient

// pageOf gets one page of a list, and where to go on.
type pageOf[T any] func(ctx context.Context, c outboxClient, size int32, token string) ([]T, string, error)

// listCommand makes a command that lists what fetch gets.
func listCommand[T any](use, short, long string, filters bool, fetch func(*outboxListing) pageOf[T],
	whole func([]T, string) proto.Message, headings []string, row func(T) []cell,
) *cobra.Command {
	var l outboxListing
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: noArgs}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if l.limit <= 0 {
			return usagef("--limit is %d: want 1 or more", l.limit)
		}
		return l.ask(cmd, func(ctx context.Context, c amendsv1.OutboxServiceClient) error {
			all, next, err := collect(ctx, c, fetch(&l), l.limit, l.page)
			if err != nil {
				return err
			}
			if l.out.json() {
				return printMessage(cmd.OutOrStdout(), whole(all, next))
			}
			t := newTable(headings...)
			for _, one := range all {
				t.row(row(one)...)
			}
			if next != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "There are more: give --limit above %d, or --page-token %s\n", l.limit, next)
			}
			return t.print(cmd.OutOrStdout())
		})
	}
	l.flags(cmd)
	if filters {
		cmd.Flags().StringVar(&l.topic, "topic", "", "only of this topic")
		cmd.Flags().StringVar(&l.key, "key", "", "only of this key")
	}
	cmd.Flags().IntVar(&l.limit, "limit", 50, "at most this many")
	cmd.Flags().StringVar(&l.page, "page-token", "", "go on after an earlier list of the same")
	return cmd
}

// collect reads pages until the limit or the end.
func collect[T any](ctx context.Context, c outboxClient, fetch pageOf[T], limit int, token string) ([]T, string, error) {
	var all []T
	for {
		page, next, err := fetch(ctx, c, int32(min(limit-len(all), maxPage)), token)
		if err != nil {
			return nil, "", err
		}
		all = append(all, page...)
		if token = next; token == "" || len(all) >= limit {
			return all, token, nil
		}
	}
}

func number(n int64) cell { return text(strconv.FormatInt(n, 10)) }

// span is a duration for people; absent is "".
func span(d *durationpb.Duration) cell {
	if d == nil {
		return text("")
	}
	return text(d.AsDuration().Round(time.Millisecond).String())
}

func newOutboxMessages() *cobra.Command {
	return listCommand("messages", "List messages that wait to be published",
		"List messages that wait to be published, partition by partition; those of one key in their order.", true,
		func(l *outboxListing) pageOf[*amendsv1.OutboxMessage] {
			return func(ctx context.Context, c outboxClient, size int32, token string) ([]*amendsv1.OutboxMessage, string, error) {
				r, err := c.ListMessages(ctx,
					&amendsv1.ListMessagesRequest{PageSize: size, PageToken: token, Topic: l.topic, Key: l.key})
				return r.GetMessages(), r.GetNextPageToken(), err
			}
		},
		func(all []*amendsv1.OutboxMessage, next string) proto.Message {
			return &amendsv1.ListMessagesResponse{Messages: all, NextPageToken: next}
		},
		[]string{"POSITION", "TOPIC", "KEY", "ID", "BYTES", "CREATED", "NOT BEFORE"},
		func(m *amendsv1.OutboxMessage) []cell {
			return []cell{text(m.GetPosition()), text(m.GetTopic()), text(m.GetKey()), text(m.GetId()), number(m.GetSize()),
				text(when(m.GetCreateTime())), text(when(m.GetNotBefore()))}
		})
}

func newOutboxBlocked() *cobra.Command {
	return listCommand("blocked", "List keys that do not get through, and why",
		`List keys of which the first message does not get through, and why, as their relay
noted them. POISON says that it never will: skip it, park its key, or mend what
the error names. The others are tried again until they get through.`, false,
		func(*outboxListing) pageOf[*amendsv1.BlockedKey] {
			return func(ctx context.Context, c outboxClient, size int32, token string) ([]*amendsv1.BlockedKey, string, error) {
				r, err := c.ListBlockedKeys(ctx, &amendsv1.ListBlockedKeysRequest{PageSize: size, PageToken: token})
				return r.GetBlockedKeys(), r.GetNextPageToken(), err
			}
		},
		func(all []*amendsv1.BlockedKey, next string) proto.Message {
			return &amendsv1.ListBlockedKeysResponse{BlockedKeys: all, NextPageToken: next}
		},
		[]string{"KEY", "MESSAGES", "POSITION", "TOPIC", "ATTEMPTS", "POISON", "SINCE", "NEXT", "ERROR"},
		func(b *amendsv1.BlockedKey) []cell {
			return []cell{text(b.GetKey()), number(b.GetMessages()), text(b.GetPosition()), text(b.GetTopic()),
				number(int64(b.GetAttempts())), yesNo(b.GetPoison()), text(when(b.GetBlockTime())), text(when(b.GetRetryTime())), text(b.GetError())}
		})
}

func yesNo(bad bool) cell {
	if bad {
		return cell{"yes", red}
	}
	return text("no")
}

func newDeadList() *cobra.Command {
	return listCommand("list", "List dead letters, oldest first", "List dead letters, oldest first.", true,
		func(l *outboxListing) pageOf[*amendsv1.DeadLetter] {
			return func(ctx context.Context, c outboxClient, size int32, token string) ([]*amendsv1.DeadLetter, string, error) {
				r, err := c.ListDeadLetters(ctx,
					&amendsv1.ListDeadLettersRequest{PageSize: size, PageToken: token, Topic: l.topic, Key: l.key})
				return r.GetDeadLetters(), r.GetNextPageToken(), err
			}
		},
		func(all []*amendsv1.DeadLetter, next string) proto.Message {
			return &amendsv1.ListDeadLettersResponse{DeadLetters: all, NextPageToken: next}
		},
		[]string{"NUMBER", "TOPIC", "KEY", "ID", "BYTES", "CREATED", "FAILED", "ATTEMPTS", "PARKED", "ERROR"},
		func(d *amendsv1.DeadLetter) []cell {
			return []cell{number(d.GetNumber()), text(d.GetTopic()), text(d.GetKey()), text(d.GetId()), number(d.GetSize()),
				text(when(d.GetCreateTime())), text(when(d.GetFailTime())), number(int64(d.GetAttempts())), yesNo(d.GetParked()), text(d.GetError())}
		})
}

func newOutboxActs() *cobra.Command {
	return listCommand("acts", "List what was done by hand, newest first", "List what was done by hand, newest first.", false,
		func(*outboxListing) pageOf[*amendsv1.OutboxAct] {
			return func(ctx context.Context, c outboxClient, size int32, token string) ([]*amendsv1.OutboxAct, string, error) {
				r, err := c.ListOutboxActs(ctx, &amendsv1.ListOutboxActsRequest{PageSize: size, PageToken: token})
				return r.GetActs(), r.GetNextPageToken(), err
			}
		},
		func(all []*amendsv1.OutboxAct, next string) proto.Message {
			return &amendsv1.ListOutboxActsResponse{Acts: all, NextPageToken: next}
		},
		[]string{"NUMBER", "TIME", "VERB", "TARGET", "MESSAGES", "ACTOR", "REASON", "REQUEST ID"},
		func(a *amendsv1.OutboxAct) []cell {
			return []cell{number(a.GetNumber()), text(when(a.GetActTime())), text(outboxVerb(a)), text(a.GetTarget()),
				number(a.GetMessages()), text(a.GetActor()), text(a.GetReason()), text(a.GetRequestId())}
		})
}

func outboxVerb(a *amendsv1.OutboxAct) string { return word(a.GetVerb().String(), "OUTBOX_VERB_") }
