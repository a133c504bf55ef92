package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox/outboxdev"
)

// TestBrokerRestarts has a broker end and come back under load, killed and in order: all is in the log once and in
// order. Then a real one forgets the producer.
func TestBrokerRestarts(t *testing.T) {
	onOwnKafka(t, func(t *testing.T, k *testBroker) {
		const keys, n = 7, 70
		topic := k.topic(t, 3)
		p := newPublisher(t, KafkaConfig{}, k.addr)
		publishAllOf(t, p, series(topic, 0, n, keys))
		sent := n
		for _, restart := range k.restarts {
			back := make(chan struct{})
			var g errgroup.Group
			g.Go(func() error { defer close(back); restart(); return nil })
			for after := 0; after < 3; { // before, meanwhile, and after
				publishAllOf(t, p, series(topic, sent, n, keys))
				sent += n
				select {
				case <-back:
					after++
				case <-time.After(10 * time.Millisecond): // a broker that starts needs the CPU
				}
			}
			_ = g.Wait() // restart fails the test by itself
			checkSeries(t, k.addr, topic, sent, keys)
		}
		if k.forget != nil {
			testBrokerForgetsProducer(t, k)
		}
	})
}

// testBrokerForgetsProducer: Kafka keeps what it knows of a silent producer for producer.id.expiration.ms, a day by
// default. Who is silent for longer goes on as if nothing had been. A batch, though, whose fate was unknown for as long
// cannot be recognized any more: it is in the log a second time, for the inbox to see.
func testBrokerForgetsProducer(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	publishAllOf(t, p, one(topic, "ab"))
	k.forget(t, topic)
	for _, letters := range []string{"cd", "ef"} {
		if errs := p.Publish(t.Context(), one(topic, letters)); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	var faults faultyNet
	lossy := newPublisher(t, KafkaConfig{DeliveryTimeout: 500 * time.Millisecond}, k.addr)
	lossy.transport.Dial = faults.dial
	faults.losing(t, lossy, 1, one(topic, "xy"))
	before := letters(t, k, topic) // the broker applies the end of its forgetting when it likes: it may hold xy twice
	k.forget(t, topic)
	lossy.cfg.DeliveryTimeout = 15 * time.Second // on a slow machine, too, the second copy's answer is waited for
	publishAllOf(t, lossy, one(topic, "xyz"))
	if got := letters(t, k, topic); !strings.HasPrefix(before, "abcdefxy") || got != before+"xyz" {
		t.Errorf("log %q, was %q, want xyz behind: all in order, and only the batch of unknown fate again", got, before)
	}
}

// forgetting makes a real broker forget its producers, and waits until it has.
func forgetting(addr string) func(t *testing.T, topic string) {
	return func(t *testing.T, topic string) {
		t.Helper()
		expire(t, addr, time.Millisecond)
		defer expire(t, addr, 24*time.Hour)
		client, err := kgo.NewClient(kgo.SeedBrokers(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		req := kmsg.NewPtrDescribeProducersRequest()
		req.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: topic, Partitions: []int32{0}}}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			res, err := req.RequestWith(t.Context(), client)
			if err == nil && len(res.Topics) == 1 && len(res.Topics[0].Partitions[0].ActiveProducers) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("it has not forgotten its producers: %+v, %v", res, err)
			}
		}
	}
}

func expire(t *testing.T, addr string, after time.Duration) {
	t.Helper()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(addr), Transport: tr, Timeout: 10 * time.Second}
	res, err := c.IncrementalAlterConfigs(context.Background(), &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeBroker, ResourceName: "1",
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{
				Name: "producer.id.expiration.ms", Value: fmt.Sprint(after.Milliseconds()), ConfigOperation: kafka.ConfigOperationSet,
			}},
		}},
	})
	if err == nil {
		err = res.Resources[0].Error
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestBrokerForgetsEverything restarts one without its data: it knows neither
// topics nor producers any more.
func TestBrokerForgetsEverything(t *testing.T) {
	cfg := outboxdev.KafkaConfig{Topics: map[string]int{"orders": 3}}
	k := startBroker(t, cfg)
	cfg.Addr = k.Addr()
	p := newPublisher(t, KafkaConfig{}, k.Addr())
	for range 3 {
		publishAllOf(t, p, series("orders", 0, 300, 7))
		checkSeries(t, k.Addr(), "orders", 300, 7)
		k.Close()
		k = startBroker(t, cfg)
	}
}
