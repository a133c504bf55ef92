package outbox

import (
	"log/slog"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// testBroker is one Kafka broker: in process, or a real one.
type testBroker struct {
	addr     string
	restarts []func()                         // end it and start it again, with its data; none where others use it too
	forget   func(t *testing.T, topic string) // all producers of partition 0; nil where it cannot be told to
}

// onKafka runs a test on each kind of broker. The real one is shared.
func onKafka(t *testing.T, fn func(t *testing.T, k *testBroker)) {
	t.Run("kfake", func(t *testing.T) { fn(t, &testBroker{addr: startBroker(t, outboxdev.KafkaConfig{}).Addr()}) })
	t.Run("kafka", func(t *testing.T) { fn(t, &testBroker{addr: servicestest.Kafka(t)[0]}) })
}

// topic makes a topic that nobody else uses.
func (k *testBroker) topic(t testing.TB, partitions int, settings ...kafka.ConfigEntry) string {
	t.Helper()
	name := servicestest.Name(t)
	k.createTopic(t, name, partitions, settings...)
	return name
}

func (k *testBroker) createTopic(t testing.TB, name string, partitions int, settings ...kafka.ConfigEntry) {
	t.Helper()
	servicestest.CreateTopic(t, []string{k.addr},
		kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: settings})
}

// onOwnKafka is onKafka with brokers that the test may restart: the real one by SIGKILL and by SIGTERM.
func onOwnKafka(t *testing.T, fn func(t *testing.T, k *testBroker)) {
	t.Run("kfake", func(t *testing.T) {
		cfg := outboxdev.KafkaConfig{Dir: t.TempDir()}
		k := startBroker(t, cfg)
		cfg.Addr = k.Addr()
		fn(t, &testBroker{addr: k.Addr(), restarts: []func(){func() {
			k.Close()
			time.Sleep(100 * time.Millisecond) // an outage that clients can notice
			k = startBroker(t, cfg)
		}}})
	})
	t.Run("kafka", func(t *testing.T) {
		k := servicestest.StartKafka(t, // the first two let a killed broker in again sooner
			"broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=300", "producer.id.expiration.check.interval.ms=50")
		fn(t, &testBroker{
			addr: k.Addr, restarts: []func(){func() { k.Kill(); k.Start() }, func() { k.Stop(); k.Start() }}, forget: forgetting(k.Addr),
		})
	})
}

// testRedis is a Redis server of the test's own: in process, or a real one.
type testRedis struct {
	addr        string
	stop, start func() // start forgets everything
}

func onRedis(t *testing.T, fn func(t *testing.T, r *testRedis)) {
	t.Run("miniredis", func(t *testing.T) {
		r := startRedis(t, "")
		addr := r.Addr()
		fn(t, &testRedis{addr: addr, stop: func() { r.Close() }, start: func() { r = startRedis(t, addr) }})
	})
	t.Run("redis", func(t *testing.T) {
		r := servicestest.StartRedis(t)
		fn(t, &testRedis{addr: r.Addr, stop: r.Stop, start: r.Start})
	})
}

func startRedis(t testing.TB, addr string) *outboxdev.Redis {
	t.Helper()
	r, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Addr: addr, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func startBroker(t testing.TB, cfg outboxdev.KafkaConfig) *outboxdev.Kafka {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	k, err := outboxdev.StartKafka(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}
