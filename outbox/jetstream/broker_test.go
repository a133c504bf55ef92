package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// patience bounds what may take long on a busy machine.
const patience = time.Minute

// testServer is a NATS server, with what the tests of it need. Subjects begin
// with a prefix of the test's own.
type testServer struct {
	url, prefix string
	nc          *nats.Conn
	js          jetstream.JetStream
}

func sharedServer(t *testing.T) *testServer { t.Helper(); return newServer(t, servicestest.NATS(t)) }

func newServer(t testing.TB, url string) *testServer {
	t.Helper()
	s := &testServer{url: url, prefix: servicestest.Name(t) + "."}
	s.nc = s.connect(t)
	js, err := jetstream.New(s.nc)
	if err != nil {
		t.Fatal(err)
	}
	s.js = js
	return s
}

// connect connects until the test ends.
func (s *testServer) connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	opts = append(append(Options(), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0)), opts...)
	nc, err := nats.Connect(s.url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (s *testServer) publisher(t testing.TB, cfg Config) *Publisher {
	t.Helper()
	return s.publisherOn(t, s.connect(t), cfg)
}

func (s *testServer) publisherOn(t testing.TB, nc *nats.Conn, cfg Config) *Publisher {
	t.Helper()
	if cfg.Prefix == "" && cfg.Subject == nil {
		cfg.Prefix = s.prefix
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = patience
	}
	p, err := New(nc, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// topic makes a topic with a stream of its own.
func (s *testServer) topic(t testing.TB) string {
	t.Helper()
	name := servicestest.Name(t)
	s.stream(t, name, jetstream.StreamConfig{})
	return name
}

// stream makes the stream of a topic, until the test ends.
func (s *testServer) stream(t testing.TB, topic string, cfg jetstream.StreamConfig) {
	t.Helper()
	cfg.Name, cfg.Subjects = topic, []string{s.prefix + topic}
	s.retry(t, func(ctx context.Context) error { _, err := s.js.CreateStream(ctx, cfg); return err })
	s.deleteLater(t, topic)
}

func (s *testServer) deleteLater(t testing.TB, stream string) {
	t.Cleanup(func() { s.retry(t, func(ctx context.Context) error { return s.js.DeleteStream(ctx, stream) }) })
}

// retry asks again while the server has just been restarted.
func (s *testServer) retry(t testing.TB, f func(ctx context.Context) error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err = f(ctx)
		cancel()
		if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) {
			return
		}
	}
	t.Fatal(err)
}

// messages are all that the stream of a topic holds. An attempt goes on where the one
// before it has run out of time.
func (s *testServer) messages(t testing.TB, topic string) []outbox.Message {
	t.Helper()
	var out []outbox.Message
	seq := uint64(1)
	s.retry(t, func(ctx context.Context) error {
		name, err := s.js.StreamNameBySubject(ctx, s.prefix+topic)
		if err != nil {
			return err
		}
		stream, err := s.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		for ; seq <= stream.CachedInfo().State.LastSeq; seq++ {
			m, err := stream.GetMsg(ctx, seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if m.Subject == s.prefix+topic {
				out = append(out, decode(m.Header, m.Data))
			}
		}
		return nil
	})
	return out
}

func (s *testServer) ids(t testing.TB, topic string) string {
	t.Helper()
	out := ""
	for _, m := range s.messages(t, topic) {
		out += m.ID
	}
	return out
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

// publishAll publishes as a relay does, and counts the calls that failed.
func publishAll(t testing.TB, p outbox.Publisher, msgs []outbox.Message) (failed int) {
	t.Helper()
	var errs []error
	for deadline := time.Now().Add(patience); len(msgs) > 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(errors.Join(errs...))
		}
		errs = p.Publish(t.Context(), msgs)
		var rest []outbox.Message
		for i, err := range errs {
			if err != nil {
				rest = append(rest, msgs[i])
			}
		}
		if msgs = rest; len(rest) > 0 {
			failed++
		}
	}
	return failed
}

// lossy stands before the server, and loses acknowledgements with their connections.
type lossy struct {
	l  net.Listener
	to string

	mu   sync.Mutex // guards what follows
	lose int        // chunks of the server's that are still to be lost
	lost int
}

func (s *testServer) throughProxy(t *testing.T) (*testServer, *lossy) {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	px := &lossy{l: l, to: u.Host}
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
	t.Cleanup(func() { l.Close(); wg.Wait() })
	// The server tells clients where it is; without a scheme of its own the URL stays the proxy's.
	return &testServer{url: fmt.Sprintf("nats://%s", l.Addr()), prefix: s.prefix, nc: s.nc, js: s.js}, px
}

func (px *lossy) serve(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", px.to)
	if err != nil {
		return
	}
	defer s.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if _, werr := s.Write(buf[:n]); err != nil || werr != nil {
				s.Close()
				return
			}
		}
	})
	buf := make([]byte, 4096)
	for chunk := 0; ; chunk++ {
		n, err := s.Read(buf)
		if err != nil || chunk > 4 && px.loses() { // the first ones are the handshake's
			break
		}
		if _, err := c.Write(buf[:n]); err != nil {
			break
		}
	}
	c.Close()
	s.Close()
	wg.Wait()
}

func (px *lossy) loses() bool {
	px.mu.Lock()
	defer px.mu.Unlock()
	if px.lose == 0 {
		return false
	}
	px.lose--
	px.lost++
	return true
}
