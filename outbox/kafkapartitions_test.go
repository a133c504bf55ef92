package outbox

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
)

// grow gives a topic more partitions, and waits until p has heard of them, which otherwise takes some seconds.
func (k *testBroker) grow(t *testing.T, p *KafkaPublisher, topic string, partitions int32) {
	t.Helper()
	defer func() { hears(t, p, topic, int(partitions)) }()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(k.addr), Transport: tr, Timeout: 5 * time.Second}
	res, err := client.CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: partitions}},
	})
	if err != nil || res.Errors[topic] != nil {
		t.Fatal(err, res)
	}
}

func hears(t *testing.T, p *KafkaPublisher, topic string, partitions int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		found, err := p.layout(t.Context(), []string{topic})
		if err == nil && len(found[topic].leaders) == partitions {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the publisher sees %d partitions, want %d (%v)", len(found[topic].leaders), partitions, err)
		}
		p.refresh()
	}
}

// TestPartitionCountChanges has a topic grow while it is written to: nothing is lost or doubled, and within a partition
// each key keeps its order. Before and after, a key's messages are in two partitions: there Kafka promises no order.
func TestPartitionCountChanges(t *testing.T) { onKafka(t, testPartitionCountChanges) }

func testPartitionCountChanges(t *testing.T, k *testBroker) {
	const keys, half = 17, 170
	topic := k.topic(t, 2)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	var sent atomic.Int64
	grown := make(chan struct{})
	var load errgroup.Group
	load.Go(func() error { // before, meanwhile, and until the new layout is in use
		for after := 0; after < 10; {
			publishAllOf(t, p, series(topic, int(sent.Load()), half, keys))
			sent.Add(half)
			select {
			case <-grown:
				after++
			default:
			}
		}
		return nil
	})
	for sent.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	k.grow(t, p, topic, 5)
	close(grown)
	_ = load.Wait() // it fails the test by itself
	total, moved := 0, 0
	next := map[string]int{}
	for part, records := range readLog(t, k.addr, topic) {
		seen := map[string]int{}
		for _, r := range records {
			total++
			var n int
			if _, err := fmt.Sscan(string(r.value), &n); err != nil {
				t.Fatal(err)
			}
			if before, ok := seen[string(r.key)]; ok && n <= before {
				t.Errorf("%s: %d after %d", r.key, n, before)
			}
			seen[string(r.key)] = n
			next[string(r.key)] = max(next[string(r.key)], n+1)
		}
		for key, n := range seen {
			if part == partitionOf(&Message{Key: key}, []int{0, 1, 2, 3, 4}) && n == int(sent.Load())/keys-1 {
				moved++
			}
		}
	}
	for key, n := range next {
		if n != int(sent.Load())/keys {
			t.Errorf("%s: %d messages of %d", key, n, int(sent.Load())/keys)
		}
	}
	if total != int(sent.Load()) || moved != keys {
		t.Errorf("%d messages in the log of %d sent; the last of %d keys are where they should be, of %d", total, sent.Load(), moved, keys)
	}
}

// TestPartitionCountChangesWhilePending: nobody knows whether a batch has arrived (it has), and then its keys belong to
// other partitions. It is sent again where it went, and so recognized; what follows goes where it belongs.
func TestPartitionCountChangesWhilePending(t *testing.T) {
	onKafka(t, testPartitionCountChangesWhilePending)
}

func testPartitionCountChangesWhilePending(t *testing.T, k *testBroker) {
	const keys = 17
	topic := k.topic(t, 2)
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 200 * time.Millisecond}, k.addr)
	var faults faultyNet
	p.transport.Dial = faults.dial
	msgs := series(topic, 0, 170, keys)
	faults.losing(t, p, 1, msgs[:85])
	p.cfg.DeliveryTimeout = 15 * time.Second
	k.grow(t, p, topic, 5)
	publishAllOf(t, p, msgs[:120]) // the same ones, and more of their keys
	publishAllOf(t, p, msgs[120:])
	total, moved := 0, 0
	for part, records := range readLog(t, k.addr, topic) {
		total += len(records)
		if part > 1 {
			moved += len(records)
		}
	}
	if total != 170 || moved == 0 {
		t.Errorf("%d messages in the log of 170; %d in the new partitions", total, moved)
	}
}

// TestTopicMadeAnewWhilePending: the partition of a batch whose fate is unknown is gone with its topic.
func TestTopicMadeAnewWhilePending(t *testing.T) { onKafka(t, testTopicMadeAnewWhilePending) }

func testTopicMadeAnewWhilePending(t *testing.T, k *testBroker) {
	topic := k.topic(t, 5)
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 200 * time.Millisecond}, k.addr)
	var faults faultyNet
	p.transport.Dial = faults.dial
	msgs := series(topic, 0, 60, 17)
	faults.losing(t, p, 1, msgs)
	p.cfg.DeliveryTimeout = 15 * time.Second
	deleteTopic(t, k.addr, topic)
	again := kafka.TopicConfig{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}
	servicestest.CreateTopic(t, []string{k.addr}, again)
	hears(t, p, topic, 1)
	publishAllOf(t, p, msgs)
	checkSeries(t, k.addr, topic, 60, 17)
}
