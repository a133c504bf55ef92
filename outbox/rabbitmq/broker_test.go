package rabbitmq

import (
	"log/slog"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// patience bounds what may take long on a busy machine.
const patience = time.Minute

// testBroker is a RabbitMQ, with what the tests of it need.
type testBroker struct {
	url      string
	exchange string // of type topic
	mu       sync.Mutex
	read     map[string][]outbox.Message
}

// sharedBroker is the one that other tests use too.
func sharedBroker(t *testing.T) *testBroker {
	t.Helper()
	return newBroker(t, servicestest.RabbitMQ(t))
}

func newBroker(t *testing.T, url string) *testBroker {
	t.Helper()
	b := &testBroker{url: url, exchange: servicestest.Name(t), read: map[string][]outbox.Message{}}
	b.declare(t, b.exchange)
	return b
}

// with does something on a channel of its own.
func (b *testBroker) with(t testing.TB, f func(ch *amqp.Channel) error) {
	t.Helper()
	conn, err := amqp.Dial(b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err == nil {
		err = f(ch)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// declare makes an exchange, until the test ends.
func (b *testBroker) declare(t testing.TB, exchange string) {
	t.Helper()
	b.with(t, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	t.Cleanup(func() {
		b.with(t, func(ch *amqp.Channel) error { return ch.ExchangeDelete(exchange, false, false) })
	})
}

// queue makes a durable queue of a name, bound with it, until the test ends.
func (b *testBroker) queue(t testing.TB, name string, args amqp.Table) {
	t.Helper()
	b.with(t, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
			return err
		}
		return ch.QueueBind(name, name, b.exchange, false, nil)
	})
	t.Cleanup(func() {
		b.with(t, func(ch *amqp.Channel) error { _, err := ch.QueueDelete(name, false, false, false); return err })
	})
}

// topic makes a topic with its queue.
func (b *testBroker) topic(t testing.TB) string {
	t.Helper()
	name := servicestest.Name(t)
	b.queue(t, name, nil)
	return name
}

// messages are all that a topic's queue has ever held.
func (b *testBroker) messages(t testing.TB, topic string) []outbox.Message {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.with(t, func(ch *amqp.Channel) error {
		for {
			d, ok, err := ch.Get(topic, true)
			if err != nil || !ok {
				return err
			}
			b.read[topic] = append(b.read[topic], Received(d))
		}
	})
	return append([]outbox.Message(nil), b.read[topic]...)
}

// ids are those of a topic's messages.
func (b *testBroker) ids(t testing.TB, topic string) string {
	t.Helper()
	out := ""
	for _, m := range b.messages(t, topic) {
		out += m.ID
	}
	return out
}

// publisher makes one that ends with the test.
func (b *testBroker) publisher(t testing.TB, cfg Config) *Publisher {
	t.Helper()
	if cfg.Exchange == "" && cfg.Destination == nil {
		cfg.Exchange = b.exchange
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	p, err := New(b.url, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

// letters makes messages whose ids are the letters, of one key each or of one for all.
func letters(topic, ids, key string) []outbox.Message {
	var out []outbox.Message
	for _, id := range ids {
		k := key
		if k == "" {
			k = string(id)
		}
		out = append(out, outbox.Message{ID: string(id), Topic: topic, Key: k, Body: []byte("body")})
	}
	return out
}

// eventually polls.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// proxy stands before the broker, and loses what it is told to.
type proxy struct {
	l  net.Listener
	to string

	mu      sync.Mutex // guards what follows
	conns   []net.Conn
	cutting int // connections are cut after so many bytes of the broker's; 0 means never
}

// throughProxy is the broker behind a proxy.
func (b *testBroker) throughProxy(t *testing.T) (*testBroker, *proxy) {
	t.Helper()
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	px := &proxy{l: l, to: u.Host}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { px.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); px.cut(); wg.Wait() })
	u.Host = l.Addr().String()
	return &testBroker{url: u.String(), exchange: b.exchange, read: map[string][]outbox.Message{}}, px
}

func (px *proxy) serve(c net.Conn) {
	s, err := net.Dial("tcp", px.to)
	if err != nil {
		c.Close()
		return
	}
	px.mu.Lock()
	px.conns = append(px.conns, c, s)
	left := px.cutting
	px.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { pipe(s, c, 0) })
	pipe(c, s, left)
	c.Close()
	s.Close()
	wg.Wait()
}

// pipe copies until the end, or until so many bytes went through.
func pipe(to, from net.Conn, limit int) {
	buf := make([]byte, 4096)
	for sum := 0; ; {
		n, err := from.Read(buf)
		sum += n
		if limit > 0 && sum > limit {
			return // what was read is lost
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// cut ends every connection.
func (px *proxy) cut() {
	px.mu.Lock()
	defer px.mu.Unlock()
	for _, c := range px.conns {
		c.Close()
	}
	px.conns = nil
}

// cutAfter cuts each later connection once the broker has sent so many bytes.
func (px *proxy) cutAfter(bytes int) {
	px.mu.Lock()
	defer px.mu.Unlock()
	px.cutting = bytes
}
