package main_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// TestLifecycleSurvivesKills kills a coordinator that tells Kafka what becomes
// of transactions, with SIGKILL at random moments: the log has the end of every
// one that was acknowledged.
func TestLifecycleSurvivesKills(t *testing.T) {
	t.Parallel() // most of its time it waits
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		k := killing{kills: 10, lifetime: time.Second, working: true, env: environ(), args: []string{"--data-dir", t.TempDir()}}
		k.telling(t)
	})
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		k := killing{
			kills: 4, lifetime: 2 * time.Second, working: true, env: environ("AMENDS_MYSQL_DSN=" + servicestest.MySQL(t)),
			args: []string{"--lease-ttl", "1s"},
		}
		k.telling(t)
	})
}

func (k killing) telling(t *testing.T) {
	broker, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	const topic = "life"
	if err := broker.CreateTopic(topic, 1); err != nil {
		t.Fatal(err)
	}
	k.args = append(k.args, "--lifecycle-kafka", broker.Addr(), "--lifecycle-topic", topic)
	k.after = func(t *testing.T, runs map[string]bool) { checkTold(t, broker.Addr(), topic, runs) }
	k.run(t)
}

// checkTold reads the log until it has the end of each run.
func checkTold(t *testing.T, broker, topic string, runs map[string]bool) {
	t.Helper()
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{broker}, Topic: topic, MaxWait: 100 * time.Millisecond})
	defer func() {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := map[string]string{} // gid: how it ended
	ids := map[string]int{}
	for missing := len(runs); missing > 0; {
		m, err := reader.ReadMessage(ctx)
		if err != nil {
			t.Fatalf("%d of %d ends are not in the log: %v", missing, len(runs), err)
		}
		var e struct{ GID, State string }
		if err := json.Unmarshal(m.Value, &e); err != nil || e.GID != string(m.Key) {
			t.Fatalf("record %q of key %q: %v", m.Value, m.Key, err)
		}
		if before := told[e.GID]; before != "" && before != e.State {
			t.Fatalf("%s ended as %s and as %s", e.GID, before, e.State)
		}
		decline, acknowledged := runs[e.GID]
		if acknowledged && told[e.GID] == "" {
			missing--
			if want := map[bool]string{false: "COMMITTED", true: "ROLLED_BACK"}[decline]; e.State != want {
				t.Errorf("%s: the log says %s, want %s", e.GID, e.State, want)
			}
		}
		told[e.GID] = e.State
		for _, h := range m.Headers {
			if h.Key == outbox.HeaderID {
				ids[string(h.Value)]++
			}
		}
	}
	again := 0
	for _, n := range ids {
		again += n - 1
	}
	if len(ids) < len(runs) {
		t.Errorf("%d ids for %d ends", len(ids), len(runs))
	}
	t.Logf("%d ends told, %d of them again", len(told), again)
}
