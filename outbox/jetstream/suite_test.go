package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxtest"
)

func harness(s *testServer) outboxtest.PublisherHarness {
	return outboxtest.PublisherHarness{
		New:   func(t testing.TB) outbox.Publisher { return s.publisher(t, Config{AckTimeout: 2 * time.Second}) },
		Topic: s.topic,
		Missing: func(t testing.TB) (string, func()) {
			name := servicestest.Name(t)
			return name, func() { s.stream(t, name, jetstream.StreamConfig{}) }
		},
		Read: s.messages,
		Creating: func(t testing.TB) outbox.Publisher {
			name := servicestest.Name(t)
			other := *s
			other.prefix = name + "."
			s.prefix = other.prefix // from here on Read looks there
			s.deleteLater(t, name)
			return other.publisher(t, Config{Stream: &jetstream.StreamConfig{Name: name}})
		},
		TooLarge: 1 << 20, // with its headers over max_payload
		Unreachable: func(t testing.TB) outbox.Publisher {
			nobody := &testServer{url: "nats://127.0.0.1:1", prefix: "x."}
			return nobody.publisher(t, Config{})
		},
	}
}

func TestPublisher(t *testing.T) { outboxtest.TestPublisher(t, harness(sharedServer(t))) }

func TestServerRestarts(t *testing.T) {
	own := servicestest.StartNATS(t)
	h := harness(newServer(t, own.Addr))
	h.Restarts = map[string]func(){
		"SIGKILL": func() { own.Kill(); own.Start() },
		"SIGTERM": func() { own.Stop(); own.Start() },
	}
	outboxtest.TestPublisherRestarts(t, h)
}

// TestLostAcknowledgements: the server drops what is published again.
func TestLostAcknowledgements(t *testing.T) {
	direct := sharedServer(t)
	topic := direct.topic(t)
	s, px := direct.throughProxy(t)
	p := s.publisher(t, Config{AckTimeout: 200 * time.Millisecond})
	failed := 0
	for round := range 8 {
		px.mu.Lock()
		px.lose = 1
		px.mu.Unlock()
		failed += publishAll(t, p, numbered(topic, round*50, 50, 7))
	}
	if px.lost < 8 || failed < 8 {
		t.Errorf("%d acknowledgements were lost, %d calls failed", px.lost, failed)
	}
	next := map[string]int{}
	all := direct.messages(t, topic)
	for _, m := range all {
		if want := fmt.Sprint(next[m.Key]); string(m.Body) != want {
			t.Errorf("key %s has %s, want %s", m.Key, m.Body, want)
		}
		next[m.Key]++
	}
	if len(all) != 400 {
		t.Errorf("%d messages are stored, want 400, each once", len(all))
	}
}

func numbered(topic string, from, n, keys int) []outbox.Message {
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		at := from + i
		msgs[i] = outbox.Message{ID: fmt.Sprint(at), Topic: topic, Key: fmt.Sprint(at % keys), Body: fmt.Append(nil, at/keys)}
	}
	return msgs
}

// TestOneStreamOfManyTopics: an id of another topic is another message.
func TestOneStreamOfManyTopics(t *testing.T) {
	s := sharedServer(t)
	name := servicestest.Name(t)
	s.deleteLater(t, name)
	p := s.publisher(t, Config{Stream: &jetstream.StreamConfig{Name: name}})
	for range 2 { // the second time, all are known
		if errs := p.Publish(t.Context(), append(letters("a.b", "1", ""), letters("c", "1", "")...)); errs != nil {
			t.Fatal(errs)
		}
	}
	if a, c := s.ids(t, "a.b"), s.ids(t, "c"); a != "1" || c != "1" {
		t.Errorf("the topics hold %q and %q, want 1 and 1", a, c)
	}
}

// TestFullStream: a stream that refuses messages holds its keys back, until
// there is room: nothing overtakes.
func TestFullStream(t *testing.T) {
	s := sharedServer(t)
	topic := servicestest.Name(t)
	s.stream(t, topic, jetstream.StreamConfig{MaxMsgs: 2, Discard: jetstream.DiscardNew})
	p := s.publisher(t, Config{})
	msgs := letters(topic, "abcd", "k")
	errs := p.Publish(t.Context(), msgs)
	if len(errs) != 4 || errs[0] != nil || errs[1] != nil || errs[2] == nil || errors.Is(errs[2], outbox.ErrPoison) ||
		!errors.Is(errs[3], outbox.ErrHeld) {
		t.Fatalf("results %v, want the third refused and the fourth held", errs)
	}
	stream, err := s.js.Stream(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeKeep(1)); err != nil {
		t.Fatal(err)
	}
	if errs := p.Publish(t.Context(), msgs[2:]); len(errs) != 2 || errs[0] != nil || errs[1] == nil {
		t.Errorf("with room for one: %v", errs)
	}
	if got := s.ids(t, topic); got != "bc" {
		t.Errorf("the stream holds %q, want bc", got)
	}
}

// TestRefusals: what JetStream will not take is told in words, and what it never
// will is poison.
func TestRefusals(t *testing.T) {
	s := sharedServer(t)
	small, topic := servicestest.Name(t), s.topic(t)
	s.stream(t, small, jetstream.StreamConfig{MaxMsgSize: 1000})
	large := letters(small, "ab", "k")
	large[0].Body = make([]byte, 2000)
	if errs := s.publisher(t, Config{}).Publish(t.Context(), large); len(errs) != 2 || !errors.Is(errs[0], outbox.ErrPoison) ||
		!strings.Contains(errs[0].Error(), "MaxMsgSize") || !errors.Is(errs[1], outbox.ErrHeld) {
		t.Errorf("over MaxMsgSize: %v", errs)
	}
	errs := s.publisher(t, Config{ExpectStream: small}).Publish(t.Context(), letters(topic, "a", ""))
	if len(errs) != 1 || errors.Is(errs[0], outbox.ErrPoison) || !strings.Contains(errs[0].Error(), "ExpectStream") {
		t.Errorf("another stream than expected: %v", errs)
	}
	for _, topic := range []string{"", "a..b", ".a", "a."} {
		if errs := s.publisher(t, Config{}).Publish(t.Context(), letters(topic, "a", "")); len(errs) != 1 || !errors.Is(errs[0], outbox.ErrPoison) {
			t.Errorf("topic %q: %v", topic, errs)
		}
	}
}

// TestSilence: a server that answers nothing holds no caller long.
func TestSilence(t *testing.T) {
	own := servicestest.StartNATS(t)
	s := newServer(t, own.Addr)
	topic := s.topic(t)
	p := s.publisherOn(t, s.connect(t, nats.FlusherTimeout(300*time.Millisecond)), Config{})
	publishAll(t, p, letters(topic, "a", ""))
	large := letters(topic, strings.Repeat("b", 20), "")
	for i := range large {
		large[i].ID, large[i].Key, large[i].Body = fmt.Sprint(i), "", make([]byte, 900_000) // more than the sockets hold
	}
	own.Pause()
	resumed := false
	defer func() {
		if !resumed {
			own.Resume()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	errs := p.Publish(ctx, large)
	if d := time.Since(begin); d > patience/2 || errors.Join(errs...) == nil {
		t.Errorf("Publish took %v: %v", d, errs)
	}
	own.Resume()
	resumed = true
	publishAll(t, p, large)
	if n := len(s.messages(t, topic)); n != 21 {
		t.Errorf("%d messages are stored, want 21, each once", n)
	}
}

func TestWrongConfig(t *testing.T) {
	_, err := New(nil, &Config{
		Window: -1, AckTimeout: -1, Prefix: "p.", Subject: func(outbox.Message) string { return "" }, Stream: &jetstream.StreamConfig{},
	})
	for _, want := range []string{"connection", "Window", "AckTimeout", "Prefix and Subject", "no Name", "no Subjects"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}
