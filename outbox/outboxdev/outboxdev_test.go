package outboxdev_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/outbox/outboxdev"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func startKafka(t *testing.T, cfg outboxdev.KafkaConfig) *outboxdev.Kafka {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	k, err := outboxdev.StartKafka(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func partitions(t *testing.T, addr, topic string) int {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(addr), Transport: &kafka.Transport{}, Timeout: 5 * time.Second}
	res, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	if res.Topics[0].Error != nil {
		t.Fatal(res.Topics[0].Error)
	}
	return len(res.Topics[0].Partitions)
}

func write(t *testing.T, addr, topic string, values ...string) {
	t.Helper()
	w := &kafka.Writer{
		Addr: kafka.TCP(addr), Topic: topic, BatchTimeout: time.Millisecond, AllowAutoTopicCreation: true,
		RequiredAcks: kafka.RequireAll,
		Transport:    &kafka.Transport{},
	}
	defer w.Close()
	for _, v := range values {
		if err := w.WriteMessages(t.Context(), kafka.Message{Key: []byte("k"), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKafkaTopicsAndDemand(t *testing.T) {
	k := startKafka(t, outboxdev.KafkaConfig{Topics: map[string]int{"orders": 3, "plain": 0}, Partitions: 2})
	for topic, want := range map[string]int{"orders": 3, "plain": 2} {
		if got := partitions(t, k.Addr(), topic); got != want {
			t.Errorf("%s has %d partitions, want %d", topic, got, want)
		}
	}
	write(t, k.Addr(), "demanded", "x")
	if got := partitions(t, k.Addr(), "demanded"); got != 2 {
		t.Errorf("a topic created on demand has %d partitions, want 2", got)
	}
	if err := k.CreateTopic("orders", 9); err != nil {
		t.Errorf("an existing topic: %v", err)
	}
}

func TestKafkaDirSurvivesRestart(t *testing.T) {
	cfg := outboxdev.KafkaConfig{Dir: t.TempDir(), Topics: map[string]int{"orders": 1}}
	k := startKafka(t, cfg)
	write(t, k.Addr(), "orders", "a", "b")
	cfg.Addr = k.Addr()
	k.Close()

	cfg.Topics = map[string]int{"orders": 1, "later": 5}
	k = startKafka(t, cfg)
	if got := partitions(t, k.Addr(), "later"); got != 5 {
		t.Errorf("a topic named at the second start has %d partitions, want 5", got)
	}
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{k.Addr()}, Topic: "orders", MaxWait: 50 * time.Millisecond,
	})
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, want := range []string{"a", "b"} {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Value) != want {
			t.Errorf("read %q, want %q", m.Value, want)
		}
	}
}

func TestWrongConfig(t *testing.T) {
	_, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{
		Addr: "0.0.0.0:0", Partitions: -1, Topics: map[string]int{"t": -2},
	})
	for _, want := range []string{"KafkaConfig.Addr", "KafkaConfig.Partitions", `KafkaConfig.Topics["t"]`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if _, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Addr: "nonsense"}); err == nil {
		t.Error("StartRedis took a nonsense address")
	}
}

func TestBothSayThatTheyAreForDevelopment(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	startKafka(t, outboxdev.KafkaConfig{Logger: logger})
	r, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n := strings.Count(log.String(), "for development only"); n != 2 {
		t.Errorf("%d notes, want 2:\n%s", n, log.String())
	}
}

func TestRedisExpiresByItself(t *testing.T) {
	r, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := redis.NewClient(&redis.Options{Addr: r.Addr()})
	defer c.Close()
	if err := c.Set(t.Context(), "k", "v", 100*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := c.Get(t.Context(), "k").Err()
		if errors.Is(err, redis.Nil) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the key is still there: %v", err)
		}
	}
}
