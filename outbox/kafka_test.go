package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

func newPublisher(t testing.TB, cfg KafkaConfig, addr ...string) *KafkaPublisher {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	p, err := NewKafka(addr, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// series makes n messages over some keys; the body is the number within the key.
func series(topic string, from, n, keys int) []Message {
	msgs := make([]Message, n)
	for i := range msgs {
		at := from + i
		msgs[i] = Message{
			ID: fmt.Sprintf("id-%d", at), Topic: topic, Key: fmt.Sprintf("key-%d", at%keys), Body: fmt.Append(nil, at/keys),
			CreatedAt: time.Now(),
		}
	}
	return msgs
}

// publishAllOf publishes as a relay does: what failed again, until all is acknowledged.
func publishAllOf(t testing.TB, p *KafkaPublisher, msgs []Message) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(msgs) > 0; {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		errs := p.Publish(ctx, msgs)
		cancel()
		var rest []Message
		for i, err := range errs {
			if err != nil {
				rest = append(rest, msgs[i])
			}
		}
		if len(rest) > 0 && time.Now().After(deadline) {
			t.Fatal(errors.Join(errs...))
		}
		msgs = rest
	}
}

func TestPublishKeepsOrderPerKey(t *testing.T) { onKafka(t, testPublishKeepsOrderPerKey) }

func testPublishKeepsOrderPerKey(t *testing.T, k *testBroker) {
	topic := k.topic(t, 5)
	p := newPublisher(t, KafkaConfig{BatchBytes: 4000, Compression: kafka.Zstd}, k.addr)
	for from := 0; from < 2000; from += 500 {
		if errs := p.Publish(t.Context(), series(topic, from, 500, 37)); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	checkSeries(t, k.addr, topic, 2000, 37)
	if errs := p.Publish(t.Context(), nil); errs != nil {
		t.Errorf("no messages: %v", errs)
	}
}

func TestPublishFromManyCallers(t *testing.T) { onKafka(t, testPublishFromManyCallers) }

func testPublishFromManyCallers(t *testing.T, k *testBroker) {
	orders, other := k.topic(t, 4), k.topic(t, 2)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	var wg sync.WaitGroup
	for caller := range 6 {
		wg.Go(func() {
			for n := range 10 {
				var msgs []Message
				for i := range 20 {
					msgs = append(msgs, Message{
						ID: fmt.Sprint(caller, n, i), Topic: [...]string{orders, other}[i%2],
						Key: fmt.Sprintf("caller-%d-%d", caller, i%2), Body: fmt.Append(nil, n*10+i/2),
					})
				}
				if errs := p.Publish(t.Context(), msgs); errs != nil {
					t.Error(errors.Join(errs...))
				}
			}
		})
	}
	wg.Wait()
	checkSeries(t, k.addr, orders, 600, 1)
	checkSeries(t, k.addr, other, 600, 1)
}

func TestMissingTopic(t *testing.T) { onKafka(t, testMissingTopic) }

func testMissingTopic(t *testing.T, k *testBroker) {
	topic, missing, created := k.topic(t, 1), servicestest.Name(t), servicestest.Name(t)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	msgs := append(series(missing, 0, 2, 1), series(topic, 0, 1, 1)...)
	msgs = append(msgs, Message{ID: "x", Topic: "not a topic"})
	errs := p.Publish(t.Context(), msgs)
	if len(errs) != 4 || errs[0] == nil || errors.Is(errs[0], ErrPoison) || errs[1] == nil || errs[2] != nil {
		t.Fatalf("results %v", errs)
	}
	if s := errs[0].Error(); !strings.Contains(s, missing+`" does not exist`) || !strings.Contains(s, "CreateTopics") {
		t.Errorf("the error does not tell what to do: %s", s)
	}
	if !errors.Is(errs[3], ErrPoison) {
		t.Errorf("an impossible topic: %v", errs[3])
	}
	k.createTopic(t, missing, 1)
	publishAllOf(t, p, series(missing, 0, 2, 1))

	p = newPublisher(t, KafkaConfig{CreateTopics: true, Partitions: 3}, k.addr)
	t.Cleanup(func() { deleteTopic(t, k.addr, created) })
	if errs := p.Publish(t.Context(), series(created, 0, 10, 2)); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	if n := len(readLog(t, k.addr, created)); n != 3 {
		t.Errorf("the created topic has %d partitions, want 3", n)
	}
}

func TestTooLargeIsPoison(t *testing.T) { onKafka(t, testTooLargeIsPoison) }

func testTooLargeIsPoison(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "20000"})
	p := newPublisher(t, KafkaConfig{}, k.addr)
	msgs := series(topic, 0, 200, 1)
	for i := range msgs { // also more than the limit together, though not one by one
		msgs[i].Headers = map[string]string{"fill": strings.Repeat("f", 500)}
	}
	large := msgs[70]
	large.Body = make([]byte, 30_000)
	msgs[70].Body, large.ID = []byte("70"), "large"
	sent := append(append(append([]Message{}, msgs[:70]...), large), msgs[70:]...)
	errs := p.Publish(t.Context(), sent)
	if len(errs) != 201 {
		t.Fatalf("%d results", len(errs))
	}
	for i, err := range errs {
		switch {
		case i < 70 && err != nil:
			t.Fatalf("message %d: %v", i, err)
		case i == 70 && (!errors.Is(err, ErrPoison) || !strings.Contains(err.Error(), "max.message.bytes")):
			t.Fatalf("the large one: %v", err)
		case i > 70 && (!errors.Is(err, ErrHeld) || errors.Is(err, ErrPoison)):
			t.Fatalf("message %d behind it: %v", i, err)
		}
	}
	if errs := p.Publish(t.Context(), sent[71:]); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	checkSeries(t, k.addr, topic, 200, 1)
}

// TestRefusedTimestamps: what is too old for a topic will always be; what is too young may be right, and a clock wrong.
func TestRefusedTimestamps(t *testing.T) {
	k := &testBroker{addr: servicestest.Kafka(t)[0]}
	topic := k.topic(t, 1, kafka.ConfigEntry{ConfigName: "message.timestamp.before.max.ms", ConfigValue: "600000"},
		kafka.ConfigEntry{ConfigName: "message.timestamp.after.max.ms", ConfigValue: "600000"})
	p := newPublisher(t, KafkaConfig{}, k.addr)
	for _, tc := range []struct {
		off    time.Duration
		poison bool
	}{{-2 * time.Hour, true}, {-30 * time.Minute, false}, {30 * time.Minute, false}, {24 * time.Hour, false}} {
		msgs := one(topic, "abc")
		msgs[0].CreatedAt, msgs[1].CreatedAt = time.Now(), time.Now().Add(tc.off)
		errs := p.Publish(t.Context(), msgs)
		if len(errs) != 3 || errs[0] != nil || !errors.Is(errs[2], ErrHeld) || errors.Is(errs[1], ErrPoison) != tc.poison ||
			!errors.Is(errs[1], kafka.InvalidTimestamp) || !strings.Contains(errs[1].Error(), ".after.max.ms") {
			t.Errorf("off by %v: %v", tc.off, errs)
		}
	}
	if got := letters(t, k, topic); got != "aaaa" {
		t.Errorf("log %q", got)
	}
}

func TestUnreachableBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 300 * time.Millisecond}, addr)
	start := time.Now()
	errs := p.Publish(t.Context(), series("orders", 0, 3, 1))
	if len(errs) != 3 || errs[0] == nil || errs[1] == nil || errs[2] == nil || errors.Is(errs[0], ErrPoison) {
		t.Fatalf("results %v", errs)
	}
	if !strings.Contains(errs[0].Error(), addr) {
		t.Errorf("the error does not name the broker: %v", errs[0])
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if errs := p.Publish(ctx, series("orders", 0, 1, 1)); len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("cancelled before it began: %v", errs)
	}
}

func TestWrongKafkaConfig(t *testing.T) {
	_, err := NewKafka([]string{"nonsense"}, &KafkaConfig{Compression: 9, BatchBytes: -1})
	for _, want := range []string{"nonsense", "Compression", "BatchBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if _, err := NewKafka(nil, nil); err == nil {
		t.Error("NewKafka took no brokers")
	}
}

func BenchmarkKafkaPublish(b *testing.B) {
	k := startBroker(b, outboxdev.KafkaConfig{Dir: b.TempDir(), Topics: map[string]int{"orders": 4}})
	for _, size := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			p := newPublisher(b, KafkaConfig{}, k.Addr())
			msgs := series("orders", 0, size, 100)
			for i := range msgs {
				msgs[i].Body = make([]byte, 200)
			}
			b.ResetTimer()
			for n := 0; n < b.N; n += size {
				for i := range msgs {
					msgs[i].ID = fmt.Sprint("id-", n+i)
				}
				if errs := p.Publish(b.Context(), msgs); errs != nil {
					b.Fatal(errors.Join(errs...))
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
