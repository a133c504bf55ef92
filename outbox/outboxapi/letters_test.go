package outboxapi_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	"github.com/amends-dev/amends/outbox/outboxdev"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// lay publishes n dead letters of orders, as a consumer does, and the last one without its body.
func lay(t *testing.T, broker string, n int) {
	t.Helper()
	pub, err := outbox.NewKafka([]string{broker}, &outbox.KafkaConfig{CreateTopics: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	for i := range n {
		m := outbox.Message{ID: fmt.Sprint("id-", i), Topic: inbox.DeadTopic("orders"), Key: fmt.Sprint("k", i%2), Body: []byte("body"),
			Headers: map[string]string{
				"own": "h", inbox.HeaderTopic: "orders", inbox.HeaderError: "no stock", inbox.HeaderGroup: "mailer", inbox.HeaderAttempts: "3",
				inbox.HeaderPartition: "1", inbox.HeaderOffset: "7",
			}}
		if i == n-1 {
			m.Key, m.Body, m.Headers[inbox.HeaderBody] = "large", nil, "left out: 9 bytes"
		}
		if err := errors.Join(pub.Publish(t.Context(), []outbox.Message{m})...); err != nil {
			t.Fatal(err)
		}
	}
}

func newLetters(t *testing.T, broker string) amendsv1.OutboxServiceClient {
	t.Helper()
	d, err := inbox.NewDeadLetters([]string{broker}, "orders", &inbox.DeadLettersConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	var l outboxapi.Local
	amendsv1.RegisterOutboxServiceServer(&l, outboxapi.NewLetters(d, &outboxapi.Config{
		Actor: func(context.Context) string { return "alice" }, Logger: slog.New(slog.DiscardHandler),
	}))
	return amendsv1.NewOutboxServiceClient(&l)
}

// TestLetters lists, shows and requeues what consumers gave up.
func TestLetters(t *testing.T) {
	k, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Topics: map[string]int{"orders": 2}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	const n = 7
	lay(t, k.Addr(), n)
	api, ctx := newLetters(t, k.Addr()), t.Context()
	count := func(want int) {
		t.Helper()
		if st, err := api.GetOutbox(ctx, &amendsv1.GetOutboxRequest{}); err != nil || st.GetDeadLetters() != int64(want) || st.GetMessages() != 0 {
			t.Fatalf("%v, %v: want %d dead letters", st, err, want)
		}
	}
	count(n)
	byID := listLetters(t, api)
	if d := byID["id-1"]; len(byID) != n || d.GetError() != "no stock" || d.GetAttempts() != 3 || d.GetTopic() != "orders" || d.GetBody() != nil {
		t.Fatalf("%d letters; id-1: %v", len(byID), d)
	}
	whole, err := api.GetDeadLetter(ctx, &amendsv1.GetDeadLetterRequest{Number: byID["id-1"].GetNumber()})
	if d := whole.GetDeadLetter(); err != nil || string(d.GetBody()) != "body" || d.GetHeaders()["own"] != "h" ||
		d.GetHeaders()[inbox.HeaderGroup] != "mailer" || d.GetHeaders()[inbox.HeaderOffset] != "7" {
		t.Errorf("%v, %v", d, err)
	}
	replay := func(want int, r *amendsv1.ReplayDeadLettersRequest) {
		t.Helper()
		r.Reason = "mended"
		resp, err := api.ReplayDeadLetters(ctx, r)
		if act := resp.GetAct(); err != nil || act.GetMessages() != int64(want) || act.GetActor() != "alice" || act.GetReason() != "mended" {
			t.Errorf("%v: %v, %v; want %d", r, act, err, want)
		}
	}
	one := []int64{byID["id-1"].GetNumber()}
	replay(1, &amendsv1.ReplayDeadLettersRequest{Numbers: one, ValidateOnly: true})
	count(n)
	replay(1, &amendsv1.ReplayDeadLettersRequest{Numbers: one})
	replay(3, &amendsv1.ReplayDeadLettersRequest{Key: "k0"})
	replay(0, &amendsv1.ReplayDeadLettersRequest{Key: "k0", Topic: "orders"})
	count(n - 4)
	whole, err = api.GetDeadLetter(ctx, &amendsv1.GetDeadLetterRequest{Number: one[0]})
	if h := whole.GetDeadLetter().GetHeaders()[inbox.HeaderRequeued]; err != nil || h == "" {
		t.Errorf("requeued: %q, %v", h, err)
	}
	checkRefused(t, api, byID["id-6"].GetNumber(), one[0])
}

// listLetters are all of them, by id, in pages of three.
func listLetters(t *testing.T, api amendsv1.OutboxServiceClient) map[string]*amendsv1.DeadLetter {
	t.Helper()
	byID := map[string]*amendsv1.DeadLetter{}
	for page := ""; ; {
		resp, err := api.ListDeadLetters(t.Context(), &amendsv1.ListDeadLettersRequest{PageSize: 3, PageToken: page})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range resp.GetDeadLetters() {
			byID[d.GetId()] = d
		}
		if page = resp.GetNextPageToken(); page == "" {
			return byID
		}
	}
}

// checkRefused asks for what cannot be done.
func checkRefused(t *testing.T, api amendsv1.OutboxServiceClient, large, gone int64) {
	t.Helper()
	ctx := t.Context()
	replay := func(r *amendsv1.ReplayDeadLettersRequest) error {
		_, err := api.ReplayDeadLetters(ctx, r)
		return err
	}
	list := func(r *amendsv1.ListDeadLettersRequest) error {
		_, err := api.ListDeadLetters(ctx, r)
		return err
	}
	_, discard := api.DiscardDeadLetters(ctx, &amendsv1.DiscardDeadLettersRequest{Numbers: []int64{large}, Reason: "r"})
	_, none := api.GetDeadLetter(ctx, &amendsv1.GetDeadLetterRequest{Number: outboxapi.LetterNumber(4000, 1<<40)})
	_, zero := api.GetDeadLetter(ctx, &amendsv1.GetDeadLetterRequest{})
	for what, tc := range map[string]struct {
		err  error
		code codes.Code
	}{
		"no body":       {replay(&amendsv1.ReplayDeadLettersRequest{Numbers: []int64{large}, Reason: "r"}), codes.FailedPrecondition},
		"gone":          {replay(&amendsv1.ReplayDeadLettersRequest{Numbers: []int64{gone}, Reason: "r"}), codes.NotFound},
		"number 0":      {replay(&amendsv1.ReplayDeadLettersRequest{Numbers: []int64{0}, Reason: "r"}), codes.NotFound},
		"no reason":     {replay(&amendsv1.ReplayDeadLettersRequest{Numbers: []int64{large}}), codes.InvalidArgument},
		"nothing":       {replay(&amendsv1.ReplayDeadLettersRequest{Reason: "r"}), codes.InvalidArgument},
		"another topic": {replay(&amendsv1.ReplayDeadLettersRequest{Topic: "bills", Reason: "r"}), codes.InvalidArgument},
		"a page":        {list(&amendsv1.ListDeadLettersRequest{PageToken: "o?"}), codes.InvalidArgument},
		"a page size":   {list(&amendsv1.ListDeadLettersRequest{PageSize: -1}), codes.InvalidArgument},
		"discard":       {discard, codes.Unimplemented},
		"none":          {none, codes.NotFound},
		"zero":          {zero, codes.NotFound},
	} {
		if status.Code(tc.err) != tc.code {
			t.Errorf("%s: %v, want %v", what, tc.err, tc.code)
		}
	}
	if resp, err := api.ListDeadLetters(ctx, &amendsv1.ListDeadLettersRequest{Topic: "bills"}); err != nil || len(resp.GetDeadLetters()) != 0 {
		t.Errorf("of another topic: %v, %v", resp, err)
	}
}
