package outbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func startCluster(t *testing.T, partitions int32) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(partitions, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestLeadersChange(t *testing.T) {
	c := startCluster(t, 6)
	p := newPublisher(t, KafkaConfig{BatchBytes: 2000}, c.ListenAddrs()...)
	for round := range 8 {
		for part := range int32(6) {
			if err := c.MoveTopicPartition("orders", part, (part+int32(round))%3); err != nil {
				t.Fatal(err)
			}
		}
		publishAllOf(t, p, series("orders", round*200, 200, 17))
	}
	checkSeries(t, c.ListenAddrs()[0], "orders", 1600, 17)
}

// TestBrokerErrors has brokers refuse produce requests, before or after they did the work.
func TestBrokerErrors(t *testing.T) {
	for _, e := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas,
		kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.CorruptMessage,
		kerr.KafkaStorageError, kerr.UnknownTopicOrPartition,
	} {
		t.Run(e.Message, func(t *testing.T) {
			c := startCluster(t, 3)
			p := newPublisher(t, KafkaConfig{BatchBytes: 2000}, c.ListenAddrs()...)
			publishAllOf(t, p, series("orders", 0, 100, 7))
			h := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{0, 2}, Err: e, Count: 3})
			defer h.Remove()
			for from := 100; from < 500; from += 100 {
				if errs := p.Publish(t.Context(), series("orders", from, 100, 7)); errs != nil {
					t.Fatal(errors.Join(errs...))
				}
			}
			checkSeries(t, c.ListenAddrs()[0], "orders", 500, 7)
		})
	}
}

func TestOnePartitionDownHoldsOnlyItself(t *testing.T) {
	c := startCluster(t, 3)
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 300 * time.Millisecond, BatchBytes: 1000}, c.ListenAddrs()...)
	h := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{1}, Err: kerr.NotEnoughReplicas, Count: -1})
	msgs := series("orders", 0, 200, 17)
	errs := p.Publish(t.Context(), msgs)
	if errs == nil {
		t.Fatal("all acknowledged")
	}
	failed := 0
	for i, err := range errs {
		if down := partitionOf(&msgs[i], []int{0, 1, 2}) == 1; down != (err != nil) {
			t.Errorf("message %d: in the partition that is down %v, error %v", i, down, err)
		} else if down {
			if failed++; (failed == 1) == errors.Is(err, ErrHeld) {
				t.Errorf("message %d is number %d of its partition: %v", i, failed, err)
			}
		}
	}
	h.Remove()
	publishAllOf(t, p, rest(msgs, errs))
	checkSeries(t, c.ListenAddrs()[0], "orders", 200, 17)
}

func TestUnauthorizedFailsAtOnce(t *testing.T) {
	c := startCluster(t, 1)
	p := newPublisher(t, KafkaConfig{}, c.ListenAddrs()...)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	errs := p.Publish(ctx, series("orders", 0, 2, 1))
	if len(errs) != 2 || !errors.Is(errs[0], kafka.TopicAuthorizationFailed) || !errors.Is(errs[1], ErrHeld) || ctx.Err() != nil {
		t.Fatalf("results %v", errs)
	}
}

func rest(msgs []Message, errs []error) []Message {
	var out []Message
	for i, err := range errs {
		if err != nil {
			out = append(out, msgs[i])
		}
	}
	return out
}
