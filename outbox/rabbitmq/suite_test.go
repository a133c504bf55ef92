package rabbitmq

import (
	"testing"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxtest"
)

func harness(b *testBroker) outboxtest.PublisherHarness {
	return outboxtest.PublisherHarness{
		New:   func(t testing.TB) outbox.Publisher { return b.publisher(t, Config{MaxMessage: 150_000}) },
		Topic: b.topic,
		Missing: func(t testing.TB) (string, func()) {
			name := servicestest.Name(t)
			return name, func() { b.queue(t, name, nil) }
		},
		Read:     b.messages,
		TooLarge: 150_001,
		Unreachable: func(t testing.TB) outbox.Publisher {
			nobody := &testBroker{url: "amqp://a:b@127.0.0.1:1/", exchange: "x"}
			return nobody.publisher(t, Config{})
		},
	}
}

func TestPublisher(t *testing.T) { outboxtest.TestPublisher(t, harness(sharedBroker(t))) }

// TestBrokerRestarts is the part of the suite that ends the broker, and what
// else needs one of the test's own.
func TestBrokerRestarts(t *testing.T) {
	encrypted := newSecure(t)
	s := servicestest.StartRabbitMQ(t, append(encrypted.lines, "max_message_size = 5000000")...)
	b := newBroker(t, s.Addr)
	h := harness(b)
	h.Restarts = map[string]func(){
		"SIGKILL": func() { s.Kill(); s.Start() },
		"SIGTERM": func() { s.Stop(); s.Start() },
	}
	outboxtest.TestPublisherRestarts(t, h)
	t.Run("TLS", func(t *testing.T) { testTLS(t, b, encrypted) })
	t.Run("alarm", func(t *testing.T) { testAlarm(t, b, s) })
	t.Run("message size", func(t *testing.T) { testBrokerRefusesSize(t, b) })
	t.Run("silence", func(t *testing.T) { testSilence(t, b, s) })
}
