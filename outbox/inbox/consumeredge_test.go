package inbox

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// TestOffsetOutOfRange: the group's offset is not in the log (any more): it goes on with the first message there is, and
// commits from there.
func TestOffsetOutOfRange(t *testing.T) { onBenches(t, testOffsetOutOfRange) }

func testOffsetOutOfRange(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 10, 2)
	b.client(t, func(c *kafka.Client) error {
		_, err := c.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
			GroupID: b.group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: 1000}}},
		})
		return err
	})
	if n := b.committed(t, topic, 1); n != 1000 {
		t.Fatalf("offset %d committed", n)
	}
	c := b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	start(t, c)
	eventually(t, "all handled", func() bool { return c.Stats().Handled == 10 })
	eventually(t, "committed anew", func() bool { return b.committed(t, topic, 1) == 10 })
	b.check(t, 10)
}

// TestDrainTimeout: a handler that runs for longer is cancelled. Its message is not to blame for that.
func TestDrainTimeout(t *testing.T) { onBenches(t, testDrainTimeout) }

func testDrainTimeout(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 1, 1)
	entered := make(chan struct{}, 1)
	c := b.consumer(t, ConsumerConfig{Attempts: 1, DrainTimeout: 50 * time.Millisecond}, func(ctx context.Context, _ *sql.Tx, _ outbox.Message) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, topic)
	stop := start(t, c)
	<-entered
	stop()
	if s := c.Stats(); s.Dead != 0 || s.Handled != 0 || b.committed(t, topic, 1) != 0 {
		t.Errorf("%+v, offset %d: the message did not stay", s, b.committed(t, topic, 1))
	}
	c = b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	start(t, c)
	eventually(t, "handled by the next", func() bool { return c.Stats().Handled == 1 })
}

// TestCommitIsTriedAgain: the brokers refuse some commits, and no message comes after: the offset is told all the same.
func TestCommitIsTriedAgain(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	b := embedded(t)
	b.connect(t, k.ListenAddrs()...)
	topic := b.topic(t, 1)
	h := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.NotCoordinator, Count: 5})
	defer h.Remove()
	b.publish(t, topic, 0, 10, 2)
	c := b.consumer(t, ConsumerConfig{CommitInterval: 10 * time.Millisecond}, insertHandled, topic)
	start(t, c)
	eventually(t, "10 committed", func() bool { return b.committed(t, topic, 1) == 10 })
}

// TestKeylessMessagesRunInParallel has three messages without a key wait for each other.
func TestKeylessMessagesRunInParallel(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	var msgs []outbox.Message
	for _, id := range []string{"a", "b", "c"} {
		msgs = append(msgs, outbox.Message{ID: id, Topic: topic})
	}
	if err := errors.Join(b.pub.Publish(t.Context(), msgs)...); err != nil {
		t.Fatal(err)
	}
	var together sync.WaitGroup
	together.Add(3)
	c := b.consumer(t, ConsumerConfig{Concurrency: 3, Attempts: 1, DeadLetters: publishFunc(func(outbox.Message) {
		together.Done()
		together.Wait()
	})}, func(context.Context, *sql.Tx, outbox.Message) error { return outbox.Poison(errors.New("no")) }, topic)
	start(t, c)
	eventually(t, "all dead", func() bool { return c.Stats().Dead == 3 })
}

// TestTopicsComeLater: Run waits for a topic, or makes it.
func TestTopicsComeLater(t *testing.T) { onBenches(t, testTopicsComeLater) }

func testTopicsComeLater(t *testing.T, b *bench) {
	for _, create := range []bool{false, true} {
		topic, group := servicestest.Name(t), b.group
		b.group = servicestest.Name(t)
		var asked atomic.Int64
		c := b.consumer(t, ConsumerConfig{CreateTopics: create, MaxBackoff: 20 * time.Millisecond}, insertHandled, topic)
		start(t, c)
		exists := func() (yes bool) {
			b.client(t, func(k *kafka.Client) error {
				meta, err := k.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
				asked.Add(1)
				yes = err == nil && meta.Topics[0].Error == nil && len(meta.Topics[0].Partitions) > 0
				return nil
			})
			return yes
		}
		if create {
			eventually(t, "it is made", exists)
		} else {
			eventually(t, "it waits", func() bool { return exists() || asked.Load() > 10 })
			if exists() {
				t.Error("the topic was made without CreateTopics")
			}
			servicestest.CreateTopic(t, b.brokers, kafka.TopicConfig{Topic: topic, NumPartitions: 1, ReplicationFactor: 1})
		}
		eventually(t, "it is ready", func() bool { return b.pub.Publish(t.Context(), numbered(topic, 0, 1, 1)) == nil })
		eventually(t, "handled", func() bool { return c.Stats().Handled == 1 })
		b.group = group
	}
}

// TestSessionTimeoutRefused: brokers have bounds for it. Trying again would not help.
func TestSessionTimeoutRefused(t *testing.T) {
	b := servers(t)
	b.connect(t, servicestest.Kafka(t)...)
	topic := b.topic(t, 1)
	c := b.consumer(t, ConsumerConfig{SessionTimeout: time.Hour}, insertHandled, topic) // the usual bound is 30 min
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := c.Run(ctx)
	if !errors.Is(err, kafka.InvalidSessionTimeout) || !strings.Contains(err.Error(), "SessionTimeout 1h0m0s") {
		t.Errorf("error %v does not tell what to change", err)
	}
}

// TestDeadLetterIsCut: what is too long for a header, or a topic, is left out, and it says so.
func TestDeadLetterIsCut(t *testing.T) {
	b := inProcess(t)
	var got []outbox.Message
	c := b.consumer(t, ConsumerConfig{DeadLetters: outbox.PublishFunc(func(_ context.Context, m outbox.Message) error {
		got = append(got, m)
		if len(m.Body) > 0 {
			return outbox.Poison(errors.New("too large"))
		}
		return nil
	})}, insertHandled, "orders")
	g := &generation{c: c, handling: t.Context()}
	headers := map[string]string{"traceparent": "00-1"}
	it := &item{tracker: newTracker("orders", 3, 0), record: record{offset: 7, message: outbox.Message{
		ID: "1", Topic: "orders", Body: []byte("body"), Headers: headers,
	}, place: place{partition: 3, offset: 7}}}
	if err := g.bury(it, 2, errors.New(strings.Repeat("é", 2000))); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1].Topic != "orders.dead" || got[1].Headers["amends-body"] != "left out: 4 bytes" ||
		got[1].Headers["amends-partition"] != "3" || got[1].Headers["amends-offset"] != "7" {
		t.Fatalf("dead letters %+v", got)
	}
	if text := got[1].Headers["amends-error"]; len(text) > 1040 || !strings.HasSuffix(text, "é… (cut)") {
		t.Errorf("error of %d bytes: %q", len(text), text)
	}
	if _, kept := got[1].Headers["traceparent"]; kept || len(headers) != 1 {
		t.Errorf("headers %v of the second try, %v of the message", got[1].Headers, headers)
	}
}
