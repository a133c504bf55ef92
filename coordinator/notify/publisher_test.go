package notify_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// publishTo is what joins notify.NewPublisher and an outbox.Publisher.
func publishTo(p outbox.Publisher) notify.PublishFunc {
	return func(ctx context.Context, msgs []notify.Message) []error {
		out := make([]outbox.Message, len(msgs))
		for i, m := range msgs {
			out[i] = outbox.Message{ID: m.ID, Topic: m.Topic, Key: m.Key, Headers: m.Headers, Body: m.Body}
		}
		errs := p.Publish(ctx, out)
		for i, err := range errs {
			if errors.Is(err, outbox.ErrPoison) {
				errs[i] = fmt.Errorf("%w: %w", notify.ErrRejected, err)
			}
		}
		return errs
	}
}

// TestDeadWebhook: a webhook that never answers holds up neither the engine nor
// Kafka, where each event arrives in order, as a CloudEvent; what waits for the
// webhook arrives when it is back.
func TestDeadWebhook(t *testing.T) {
	const n = 300
	var dead atomic.Bool
	dead.Store(true)
	var posted atomic.Int64
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if dead.Load() {
			<-hang
		}
		posted.Add(1)
	}))
	defer srv.Close()
	topic := kafkaTopic(t)
	s := newShelf(t, "a-1")
	notifier, _ := deliver(t, s, nil,
		notify.Subscriber{Name: "webhook", Sink: hook(t, srv.URL, &notify.WebhookConfig{Timeout: 100 * time.Millisecond})},
		notify.Subscriber{Name: "kafka", Sink: topic.sink})
	var slowest time.Duration
	observe := func(rec store.Record, events []store.Event) {
		began := time.Now()
		notifier.Observe(rec, events)
		slowest = max(slowest, time.Since(began))
	}
	for i := range n {
		observe(s.stall(fmt.Sprint("g", i)))
	}
	eventually(t, "alerts are in Kafka", func() bool { return notifier.Stats()[1].Sent == n })
	for i := range n {
		observe(s.finish(fmt.Sprint("g", i)))
	}
	eventually(t, "the rest is in Kafka", func() bool { return notifier.Stats()[1].Sent == 3*n })
	eventually(t, "the webhook has failed", func() bool { return notifier.Stats()[0].Failures > 0 })
	if slowest > time.Second {
		t.Errorf("an observation took %v", slowest)
	}
	topic.check(t, n)
	if got := notifier.Stats()[0]; got.Sent != 0 || got.Queued != 3*n {
		t.Errorf("the dead webhook: %+v", got)
	}
	dead.Store(false)
	close(hang)
	eventually(t, "the webhook has it, too", func() bool { return notifier.Stats()[0].Sent == 3*n })
}

// kafkaLog is a topic and the sink that writes to it.
type kafkaLog struct {
	name, addr string
	sink       notify.Sink
}

func kafkaTopic(t *testing.T) kafkaLog {
	t.Helper()
	k, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Topics: map[string]int{notify.DefaultTopic: 1}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	p, err := outbox.NewKafka([]string{k.Addr()}, &outbox.KafkaConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return kafkaLog{notify.DefaultTopic, k.Addr(), notify.NewPublisher(publishTo(p), "")}
}

// check reads the topic: three events of each of n transactions.
func (k kafkaLog) check(t *testing.T, n int) {
	t.Helper()
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{k.addr}, Topic: k.name, MaxWait: 50 * time.Millisecond})
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := map[string][]string{}
	for range 3 * n {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		h := map[string]string{}
		for _, header := range m.Headers {
			h[header.Key] = string(header.Value)
		}
		gid := string(m.Key)
		if h["ce_specversion"] != "1.0" || h["ce_subject"] != gid || h["ce_source"] != "amends" ||
			!strings.HasPrefix(h["ce_id"], gid+"/") || h["ce_time"] == "" ||
			h["content-type"] != "application/json" || !strings.Contains(string(m.Value), `"gid":"`+gid+`"`) {
			t.Fatalf("record %v %s", h, m.Value)
		}
		got[gid] = append(got[gid], strings.TrimPrefix(h["ce_type"], "dev.amends.transaction."))
	}
	for i := range n {
		if gid := fmt.Sprint("g", i); !slices.Equal(got[gid], []string{"stalled", "resumed", "committed"}) {
			t.Errorf("%s: %v", gid, got[gid])
		}
	}
}

// TestPublisher: what a publisher answers becomes one error.
func TestPublisher(t *testing.T) {
	down, poison := errors.New("down"), fmt.Errorf("too large: %w", outbox.ErrPoison)
	for name, c := range map[string]struct {
		errs     []error
		ok       bool
		rejected bool
	}{
		"all":             {nil, true, false},
		"each":            {[]error{nil, nil}, true, false},
		"one is down":     {[]error{nil, down}, false, false},
		"rejected":        {[]error{poison, outbox.ErrHeld}, false, true},
		"down, rejected":  {[]error{down, poison}, false, false},
		"too few answers": {[]error{nil}, false, false},
	} {
		sink := notify.NewPublisher(publishTo(fixed(c.errs)), "other")
		err := sink.Send(t.Context(), []notify.Event{example, example})
		if (err == nil) != c.ok || errors.Is(err, notify.ErrRejected) != c.rejected {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type fixed []error

func (f fixed) Publish(context.Context, []outbox.Message) []error { return f }
