package outboxtest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

func TestKafkaPublisher(t *testing.T) {
	t.Parallel()
	t.Run("kafka", func(t *testing.T) { TestPublisher(t, kafkaHarness(servicestest.Kafka(t)[0])) })
	t.Run("kfake", func(t *testing.T) {
		k := startKfake(t, outboxdev.KafkaConfig{})
		TestPublisher(t, kafkaHarness(k.Addr()))
	})
}

func TestKafkaPublisherRestarts(t *testing.T) {
	t.Parallel()
	t.Run("kafka", func(t *testing.T) {
		k := servicestest.StartKafka(t)
		h := kafkaHarness(k.Addr)
		h.Restarts = map[string]func(){"SIGKILL": func() { k.Kill(); k.Start() }}
		TestPublisherRestarts(t, h)
	})
	t.Run("kfake", func(t *testing.T) {
		cfg := outboxdev.KafkaConfig{Dir: t.TempDir()}
		k := startKfake(t, cfg)
		cfg.Addr = k.Addr()
		h := kafkaHarness(k.Addr())
		h.Restarts = map[string]func(){"Close": func() { k.Close(); k = startKfake(t, cfg) }}
		TestPublisherRestarts(t, h)
	})
}

func startKfake(t testing.TB, cfg outboxdev.KafkaConfig) *outboxdev.Kafka {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	k, err := outboxdev.StartKafka(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func kafkaHarness(addr string) PublisherHarness {
	publisher := func(t testing.TB, addr string, cfg outbox.KafkaConfig) outbox.Publisher {
		t.Helper()
		cfg.Logger = slog.New(slog.DiscardHandler)
		p, err := outbox.NewKafka([]string{addr}, &cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	create := func(t testing.TB, name string) {
		t.Helper()
		servicestest.CreateTopic(t, []string{addr}, kafka.TopicConfig{
			Topic: name, NumPartitions: 3, ReplicationFactor: 1,
			ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: "150000"}},
		})
	}
	return PublisherHarness{
		New: func(t testing.TB) outbox.Publisher { return publisher(t, addr, outbox.KafkaConfig{}) },
		Topic: func(t testing.TB) string {
			name := servicestest.Name(t)
			create(t, name)
			return name
		},
		Missing: func(t testing.TB) (string, func()) {
			name := servicestest.Name(t)
			return name, func() { create(t, name) }
		},
		Read: func(t testing.TB, topic string) []outbox.Message { return readKafka(t, addr, topic) },
		Creating: func(t testing.TB) outbox.Publisher {
			return publisher(t, addr, outbox.KafkaConfig{CreateTopics: true, Partitions: 2})
		},
		TooLarge: 150_000,
		Unreachable: func(t testing.TB) outbox.Publisher {
			return publisher(t, "127.0.0.1:1", outbox.KafkaConfig{DeliveryTimeout: 300 * time.Millisecond})
		},
	}
}

// readKafka reads all partitions of a topic to their ends, one after the other.
func readKafka(t testing.TB, addr, topic string) []outbox.Message {
	t.Helper()
	var out []outbox.Message
	var err error
	for deadline := time.Now().Add(publishPatience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if out, err = tryReadKafka(addr, topic); err == nil {
			return out
		}
	}
	t.Fatal(err)
	return nil
}

func tryReadKafka(addr, topic string) ([]outbox.Message, error) {
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(addr), Transport: tr, Timeout: 10 * time.Second}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	meta, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, err
	}
	if err := meta.Topics[0].Error; err != nil {
		return nil, err
	}
	var out []outbox.Message
	for part := range meta.Topics[0].Partitions {
		for next, end := int64(0), int64(1); next < end; {
			res, err := c.Fetch(ctx, &kafka.FetchRequest{
				Topic: topic, Partition: part, Offset: next, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 10 * time.Millisecond,
			})
			if err == nil {
				err = res.Error
			}
			if err != nil {
				return nil, err
			}
			if end = res.HighWatermark; end == 0 {
				break
			}
			for {
				rec, err := res.Records.ReadRecord()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return nil, err
				}
				if rec.Offset >= next {
					out = append(out, fromKafka(topic, rec))
					next = rec.Offset + 1
				}
			}
		}
	}
	return out, nil
}

func fromKafka(topic string, rec *kafka.Record) outbox.Message {
	key, _ := kafka.ReadAll(rec.Key) // bytes in memory
	body, _ := kafka.ReadAll(rec.Value)
	m := outbox.Message{Topic: topic, Key: string(key), Body: body, Headers: map[string]string{}}
	for _, h := range rec.Headers {
		if h.Key == outbox.HeaderID {
			m.ID = string(h.Value)
			continue
		}
		m.Headers[h.Key] = string(h.Value)
	}
	return m
}
