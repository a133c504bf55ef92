package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/outbox/inbox"
)

func newDead() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "dead",
		Short: "Show and requeue dead letters of Kafka consumers",
		Long: `Show what consumers gave up, in the topics with ".dead" at the end of their names,
and send it back to the topics that it came from. The commands go to the brokers;
no consumer has to run. (Messages that a relay could not publish are shown by
'amends outbox dead'.)`,
	})
	cmd.AddCommand(newLetterList(), newLetterShow(), newLetterRequeue())
	return cmd
}

// deadAsking is what every command on dead letters has.
type deadAsking struct {
	kafka   []string
	login   kafkaLogin
	topic   string
	timeout time.Duration
	out     output
}

func (a *deadAsking) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&a.kafka, "kafka", nil, "`brokers`, host:port, separated by commas")
	a.login.flags(cmd)
	f.StringVar(&a.topic, "topic", "", "the topic that the messages were published to, without .dead")
	f.DurationVar(&a.timeout, "timeout", time.Minute, "how long all of it may take")
	a.out.flag(cmd)
}

// ask runs fn with the dead letters of the topic.
func (a *deadAsking) ask(cmd *cobra.Command, fn func(context.Context, *inbox.DeadLetters) error) error {
	switch {
	case len(a.kafka) == 0:
		return usagef("--kafka is missing: name the brokers, host:port")
	case a.topic == "":
		return usagef("--topic is missing: name the topic that the messages were published to")
	case a.timeout <= 0:
		return usagef("--timeout is %v: give a duration above 0", a.timeout)
	}
	if err := a.login.check(a.kafka); err != nil {
		return err
	}
	log, err := (&logging{level: "warn"}).logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if err := a.login.try(cmd.Context(), log, kafkaUse{"--kafka", a.kafka}); err != nil {
		return err
	}
	conf, login, err := a.login.open()
	if err != nil {
		return err
	}
	d, err := inbox.NewDeadLetters(a.kafka, a.topic, &inbox.DeadLettersConfig{TLS: conf, SASL: login, Logger: log})
	if err != nil {
		return &usageError{err}
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	if err := fn(ctx, d); err != nil {
		if ctx.Err() != nil && cmd.Context().Err() == nil {
			return fmt.Errorf("no answer within %v: is --kafka right? (%w)", a.timeout, err)
		}
		return err
	}
	return nil
}

// letter is a dead letter as JSON shows it.
type letter struct {
	Place           string            `json:"place"`
	Topic           string            `json:"topic"`
	Key             string            `json:"key,omitempty"`
	ID              string            `json:"id"`
	Group           string            `json:"group,omitempty"`
	Attempts        int               `json:"attempts"`
	Error           string            `json:"error,omitempty"`
	FirstFailed     *time.Time        `json:"firstFailTime,omitempty"`
	Failed          *time.Time        `json:"failTime,omitempty"`
	Created         *time.Time        `json:"createTime,omitempty"`
	OriginPartition int               `json:"originPartition"`
	OriginOffset    int64             `json:"originOffset"`
	Size            int               `json:"size"`
	BodyLeftOut     bool              `json:"bodyLeftOut,omitempty"`
	Requeued        *time.Time        `json:"requeueTime,omitempty"`
	RequeueReason   string            `json:"requeueReason,omitempty"`
	RequeueActor    string            `json:"requeueActor,omitempty"`
	Headers         map[string]string `json:"headers,omitempty"`
	Body            []byte            `json:"body,omitempty"` // base64
}

func letterOf(l *inbox.DeadLetter) letter {
	out := letter{
		Place: placeOf(l), Topic: l.Message.Topic, Key: l.Message.Key, ID: l.Message.ID, Group: l.Group, Attempts: l.Attempts,
		Error: l.Error, FirstFailed: known(l.FirstFailed), Failed: known(l.Failed), Created: known(l.Message.CreatedAt),
		OriginPartition: l.OriginPartition, OriginOffset: l.OriginOffset, Size: l.Size, BodyLeftOut: l.BodyLeftOut,
		Headers: l.Message.Headers, Body: l.Message.Body,
	}
	if r := l.Requeued; r != nil {
		out.Requeued, out.RequeueReason, out.RequeueActor = known(r.At), r.Reason, r.Actor
	}
	return out
}

func placeOf(l *inbox.DeadLetter) string {
	return strconv.Itoa(l.Partition) + "/" + strconv.FormatInt(l.Offset, 10)
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func instant(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// letterFilter are the flags that pick dead letters.
type letterFilter struct{ inbox.DeadLetterFilter }

func (f *letterFilter) flags(cmd *cobra.Command, requeued string) {
	cmd.Flags().StringVar(&f.ID, "id", "", "only the message with this id")
	cmd.Flags().StringVar(&f.Key, "key", "", "only of this key")
	cmd.Flags().StringVar(&f.Group, "group", "", "only what this consumer group gave up")
	cmd.Flags().BoolVar(&f.Requeued, "requeued", false, requeued)
}

func newLetterList() *cobra.Command {
	var a deadAsking
	var f letterFilter
	var newest bool
	var limit int
	var page string
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters, those that failed first at the top", Args: noArgs,
		Example: "  amends dead list --kafka 127.0.0.1:9460 --topic orders --newest",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit <= 0 {
				return usagef("--limit is %d: want 1 or more", limit)
			}
			return a.ask(cmd, func(ctx context.Context, d *inbox.DeadLetters) error {
				q := inbox.DeadLetterQuery{DeadLetterFilter: f.DeadLetterFilter, Newest: newest, Limit: limit, Page: page}
				all, next, err := d.List(ctx, q)
				if err != nil {
					return err
				}
				if next != "" && !a.out.json() {
					fmt.Fprintf(cmd.ErrOrStderr(), "There are more: give --limit above %d, or --page-token %s\n", limit, next)
				}
				return printLetters(cmd.OutOrStdout(), a.out, all, next)
			})
		},
	}
	a.flags(cmd)
	f.flags(cmd, "those that were requeued, too")
	cmd.Flags().BoolVar(&newest, "newest", false, "those that failed last at the top")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most this many")
	cmd.Flags().StringVar(&page, "page-token", "", "go on after an earlier list of the same")
	return cmd
}

func printLetters(w io.Writer, out output, all []inbox.DeadLetter, next string) error {
	letters := make([]letter, len(all))
	for i := range all {
		letters[i] = letterOf(&all[i])
	}
	if out.json() {
		return printJSON(w, struct {
			Letters []letter `json:"deadLetters"`
			Next    string   `json:"nextPageToken,omitempty"`
		}{letters, next})
	}
	t := newTable("PLACE", "KEY", "ID", "GROUP", "BYTES", "FAILED", "ATTEMPTS", "REQUEUED", "ERROR")
	for _, l := range letters {
		t.row(text(l.Place), text(l.Key), text(l.ID), text(l.Group), number(int64(l.Size)), text(instant(l.Failed)),
			number(int64(l.Attempts)), text(instant(l.Requeued)), text(l.Error))
	}
	return t.print(w)
}

func newLetterShow() *cobra.Command {
	var a deadAsking
	var body bool
	cmd := &cobra.Command{
		Use: "show PLACE", Short: "Show one dead letter whole", Args: oneOf("the place of a dead letter, as 'dead list' shows it"),
		Example: "  amends dead show 2/17 --kafka 127.0.0.1:9460 --topic orders",
		RunE: func(cmd *cobra.Command, args []string) error {
			partition, offset, err := inbox.ParseDeadLetterPlace(args[0])
			if err != nil {
				return &usageError{err}
			}
			return a.ask(cmd, func(ctx context.Context, d *inbox.DeadLetters) error {
				l, err := d.Get(ctx, partition, offset)
				w := cmd.OutOrStdout()
				switch {
				case errors.Is(err, inbox.ErrNoDeadLetter):
					return fmt.Errorf("%w: see 'amends dead list'", err)
				case err != nil:
					return err
				case body:
					_, err = w.Write(l.Message.Body)
					return err
				case a.out.json():
					return printJSON(w, letterOf(&l))
				}
				return printLetter(w, letterOf(&l))
			})
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&body, "body", false, "write the body as it is, and nothing else")
	return cmd
}

func printLetter(w io.Writer, l letter) error {
	type field struct{ name, value string }
	fields := []field{
		{"place", l.Place}, {"topic", l.Topic}, {"key", l.Key}, {"id", l.ID}, {"group", l.Group},
		{"origin", fmt.Sprintf("%d/%d", l.OriginPartition, l.OriginOffset)}, {"created", instant(l.Created)},
		{"failed first", instant(l.FirstFailed)}, {"failed", instant(l.Failed)}, {"attempts", strconv.Itoa(l.Attempts)},
		{"error", l.Error}, {"requeued", instant(l.Requeued)}, {"by", l.RequeueActor}, {"because", l.RequeueReason},
	}
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		fields = append(fields, field{"header", name + ": " + l.Headers[name]})
	}
	body := string(l.Body)
	if l.BodyLeftOut {
		body = "(left out: it was too large; look for it at its origin)"
	}
	for _, f := range append(fields, field{"bytes", strconv.Itoa(l.Size)}, field{"body", body}) {
		if f.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-13s %s\n", f.name+":", printable(f.value)); err != nil {
			return err
		}
	}
	return nil
}
