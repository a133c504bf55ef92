package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// testAlarm: while the broker has an alarm, messages wait, and nothing fails.
func testAlarm(t *testing.T, b *testBroker, s *servicestest.Server) {
	topic := b.topic(t)
	p := b.publisher(t, Config{})
	if errs := p.Publish(t.Context(), letters(topic, "a", "k")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	s.RabbitMQCtl("set_vm_memory_high_watermark", "absolute", "1MB")
	raised := true
	defer func() {
		if raised {
			s.RabbitMQCtl("set_vm_memory_high_watermark", "absolute", "400MB")
		}
	}()
	answer := make(chan []error, 1)
	go func() { answer <- p.Publish(t.Context(), letters(topic, "bc", "k")) }()
	eventually(t, "the broker blocks", func() bool {
		p.link.mu.Lock() // the one call that runs made no other link
		defer p.link.mu.Unlock()
		return p.link.blocked != ""
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	errs := p.Publish(ctx, letters(topic, "x", "x")) // meanwhile, of someone with less patience
	if len(errs) != 1 || !errors.Is(errs[0], context.DeadlineExceeded) || !strings.Contains(errs[0].Error(), "blocks publishers") {
		t.Errorf("results %v, want one that says that the broker blocks", errs)
	}
	select {
	case errs := <-answer:
		t.Fatalf("it did not wait: %v", errs)
	default:
	}
	s.RabbitMQCtl("set_vm_memory_high_watermark", "absolute", "400MB")
	raised = false
	if errs := <-answer; errs != nil {
		t.Errorf("after the alarm: %v", errs)
	}
	if got := b.ids(t, topic); got != "abc" {
		t.Errorf("the queue held %q, want abc", got)
	}
}

// testSilence: a broker that answers nothing holds no caller longer than his
// context lasts, whatever the caller is at: also a write that does not move.
func testSilence(t *testing.T, b *testBroker, s *servicestest.Server) {
	topic := b.topic(t)
	p := b.publisher(t, Config{ConnectTimeout: time.Second})
	if errs := p.Publish(t.Context(), letters(topic, "a", "k")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	s.Pause()
	resumed := false
	defer func() {
		if !resumed {
			s.Resume()
		}
	}()
	large := letters(topic, "bcdefgh", "")
	for i := range large {
		large[i].Body = make([]byte, 4<<20) // more than the sockets hold
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		begin := time.Now()
		errs := p.Publish(ctx, large)
		cancel()
		if d := time.Since(begin); d > patience/2 {
			t.Errorf("Publish took %v", d)
		}
		if len(errs) != len(large) || errors.Join(errs...) == nil {
			t.Errorf("results %v", errs)
		}
	}
	s.Resume()
	resumed = true
	publishAll(t, p, large)
	seen := map[string]bool{}
	for _, m := range b.messages(t, topic) {
		seen[m.ID] = true
	}
	if len(seen) != 8 {
		t.Errorf("the queue held %v", seen)
	}
}

// publishAll publishes as a relay does.
func publishAll(t testing.TB, p *Publisher, msgs []outbox.Message) {
	t.Helper()
	var errs []error
	eventually(t, "all acknowledged", func() bool {
		errs = p.Publish(t.Context(), msgs)
		var rest []outbox.Message
		for i, err := range errs {
			if err != nil {
				rest = append(rest, msgs[i])
			}
		}
		msgs = rest
		return len(msgs) == 0
	})
}

// TestClosedChannel: what makes the broker close the channel is found among the
// messages under way, and nobody else is blamed or lost.
func TestClosedChannel(t *testing.T) {
	b := sharedBroker(t)
	topic, gone := b.topic(t), servicestest.Name(t)
	b.with(t, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(gone, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	p := b.publisher(t, Config{Destination: func(m outbox.Message) (string, string) {
		if m.Topic == gone {
			return gone, m.Topic
		}
		return b.exchange, m.Topic
	}})
	p.Publish(t.Context(), letters(gone, "z", "")) // it is known to be there
	b.with(t, func(ch *amqp.Channel) error { return ch.ExchangeDelete(gone, false, false) })
	var msgs []outbox.Message
	for i := range 100 {
		m := outbox.Message{ID: fmt.Sprint(i), Topic: topic, Key: fmt.Sprint(i % 40)}
		if i == 50 || i == 60 || i == 90 { // keys 10, 20 and 10
			m.Topic = gone
		}
		msgs = append(msgs, m)
	}
	errs := p.Publish(t.Context(), msgs)
	if len(errs) != 100 {
		t.Fatalf("%d results", len(errs))
	}
	for i, err := range errs {
		switch i {
		case 50, 60:
			if err == nil || errors.Is(err, outbox.ErrHeld) || errors.Is(err, outbox.ErrPoison) || !strings.Contains(err.Error(), gone) {
				t.Errorf("message %d, to an exchange that is gone: %v", i, err)
			}
		case 90:
			if !errors.Is(err, outbox.ErrHeld) {
				t.Errorf("message %d, behind it: %v", i, err)
			}
		default:
			if err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
	}
	seen := map[string]bool{}
	for _, m := range b.messages(t, topic) {
		seen[m.ID] = true
	}
	if len(seen) != 97 {
		t.Errorf("%d messages arrived, want 97", len(seen))
	}
}

// testBrokerRefusesSize: a message over max_message_size closes the channel. It
// is poison, and the only one.
func testBrokerRefusesSize(t *testing.T, b *testBroker) {
	topic := b.topic(t)
	p := b.publisher(t, Config{})
	msgs := append(letters(topic, "abc", ""), letters(topic, "xyz", "k")...)
	msgs[4].Body = make([]byte, 5_000_001)
	errs := p.Publish(t.Context(), msgs)
	for i, err := range errs {
		if i < 4 && err != nil || i == 4 && !errors.Is(err, outbox.ErrPoison) || i == 5 && !errors.Is(err, outbox.ErrHeld) {
			t.Errorf("message %s: %v", msgs[i].ID, err)
		}
	}
	if len(errs) != 6 {
		t.Errorf("results %v", errs)
	}
	seen := map[string]bool{}
	for _, m := range b.messages(t, topic) {
		seen[m.ID] = true
	}
	if len(seen) != 4 || seen["y"] || seen["z"] {
		t.Errorf("the queue held %v, want a, b, c, x", seen)
	}
}

// TestFullQueue: a queue that refuses messages holds its keys back, until there
// is room: nothing overtakes.
func TestFullQueue(t *testing.T) {
	b := sharedBroker(t)
	topic := servicestest.Name(t)
	b.queue(t, topic, amqp.Table{"x-max-length": 2, "x-overflow": "reject-publish"})
	p := b.publisher(t, Config{})
	msgs := letters(topic, "abcdef", "k")
	eventually(t, "the queue is full", func() bool { // it takes some more than its limit
		errs := p.Publish(t.Context(), msgs)
		for i, err := range errs {
			if err == nil {
				continue
			}
			if !strings.Contains(err.Error(), "nack") {
				t.Fatalf("message %d: %v", i, err)
			}
			for _, held := range errs[i+1:] {
				if !errors.Is(held, outbox.ErrHeld) {
					t.Fatalf("behind a refused one: %v", errs)
				}
			}
			msgs = msgs[i:]
			return true
		}
		return false
	})
	for len(msgs) > 0 { // the consumer takes some
		b.messages(t, topic)
		errs := p.Publish(t.Context(), msgs)
		n := 0
		for n < len(msgs) && (errs == nil || errs[n] == nil) {
			n++
		}
		msgs = msgs[n:]
	}
	if got := b.ids(t, topic); got != "abcdef" {
		t.Errorf("the queue held %q, want abcdef", got)
	}
}

// TestExchanges: a missing exchange is an error that says so, or is made.
func TestExchanges(t *testing.T) {
	b := sharedBroker(t)
	topic, name := b.topic(t), servicestest.Name(t)
	t.Cleanup(func() {
		b.with(t, func(ch *amqp.Channel) error { return ch.ExchangeDelete(name, false, false) })
	})
	errs := b.publisher(t, Config{Exchange: name}).Publish(t.Context(), letters(topic, "a", ""))
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "set Config.Declare") || errors.Is(errs[0], outbox.ErrPoison) {
		t.Errorf("results %v", errs)
	}
	p := b.publisher(t, Config{Exchange: name, Declare: true})
	errs = p.Publish(t.Context(), letters(topic, "a", ""))
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "no queue is bound") {
		t.Errorf("results %v", errs)
	}
	b.with(t, func(ch *amqp.Channel) error { return ch.QueueBind(topic, "#", name, false, nil) })
	if errs := p.Publish(t.Context(), letters(topic, "b", "")); errs != nil {
		t.Error(errs)
	}
	if got := b.ids(t, topic); got != "b" {
		t.Errorf("the queue held %q, want b", got)
	}
}

// TestCutConnections: confirmations are lost on the way, again and again. All
// arrives, in order; what arrived twice was sent twice.
func TestCutConnections(t *testing.T) {
	direct := sharedBroker(t)
	topic := direct.topic(t)
	b, px := direct.throughProxy(t)
	p := b.publisher(t, Config{MaxBackoff: 20 * time.Millisecond})
	px.cutAfter(1000) // the handshake takes about 700
	const want = 5    // calls that fail
	n, failed := 0, 0
	var msgs []outbox.Message
	for deadline := time.Now().Add(patience); (failed < want || len(msgs) > 0) && time.Now().Before(deadline); {
		for failed < want && len(msgs) < 40 {
			msgs = append(msgs, outbox.Message{ID: fmt.Sprintf("%05d", n), Topic: topic, Key: fmt.Sprint(n % 4)})
			n++
		}
		errs := p.Publish(t.Context(), msgs)
		var rest []outbox.Message
		for i, err := range errs {
			if err != nil {
				rest = append(rest, msgs[i])
			}
		}
		if msgs = rest; len(msgs) > 0 {
			failed++
		}
		if failed == want {
			px.cutAfter(0)
			px.cut()
		}
	}
	if failed < want || len(msgs) > 0 {
		t.Fatalf("%d calls failed, %d messages left", failed, len(msgs))
	}
	last, seen := map[string]string{}, map[string]bool{}
	all := direct.messages(t, topic)
	for _, m := range all {
		if seen[m.ID] {
			continue
		}
		seen[m.ID] = true
		if m.ID < last[m.Key] {
			t.Errorf("key %s: %s came after %s", m.Key, m.ID, last[m.Key])
		}
		last[m.Key] = m.ID
	}
	if len(seen) != n {
		t.Errorf("%d messages arrived, want %d", len(seen), n)
	}
	t.Logf("%d calls failed, %d messages arrived twice", failed, len(all)-len(seen))
}

// TestLargeHeaders: what does not fit into a frame would end the connection.
func TestLargeHeaders(t *testing.T) {
	b := sharedBroker(t)
	topic := b.topic(t)
	p := b.publisher(t, Config{})
	msgs := letters(topic, "abc", "")
	msgs[1].Headers = map[string]string{"large": strings.Repeat("h", 131_000)}
	msgs[2].Headers = map[string]string{"large": strings.Repeat("h", 130_000)}
	errs := p.Publish(t.Context(), msgs)
	if len(errs) != 3 || errs[0] != nil || !errors.Is(errs[1], outbox.ErrPoison) || errs[2] != nil {
		t.Errorf("results %v, want the second to be poison", errs)
	}
	for name, m := range map[string]outbox.Message{
		"exchange": {Topic: strings.Repeat("t", 256)}, "ID": {ID: strings.Repeat("i", 256), Topic: topic},
		"name": {Topic: topic, Headers: map[string]string{strings.Repeat("h", 256): ""}},
	} {
		if errs := p.Publish(t.Context(), []outbox.Message{m}); len(errs) != 1 || !errors.Is(errs[0], outbox.ErrPoison) {
			t.Errorf("too long a %s: %v", name, errs)
		}
	}
}

// TestClose: nothing runs on, and nothing is taken any more.
func TestClose(t *testing.T) {
	b := sharedBroker(t)
	topic := b.topic(t)
	before := runtime.NumGoroutine()
	for range 3 {
		p := b.publisher(t, Config{})
		if errs := p.Publish(t.Context(), letters(topic, "ab", "")); errs != nil {
			t.Fatal(errs)
		}
		p.link.tcp.Close()
		publishAll(t, p, letters(topic, "cd", "")) // on another connection
		if err := errors.Join(p.Close(), p.Close()); err != nil {
			t.Error(err)
		}
		if errs := p.Publish(t.Context(), letters(topic, "e", "")); len(errs) != 1 || !errors.Is(errs[0], errClosed) {
			t.Errorf("published after Close: %v", errs)
		}
	}
	eventually(t, "its goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestWrongConfig(t *testing.T) {
	_, err := New("http://x", &Config{
		Window: -1, Timeout: -1, Exchange: strings.Repeat("e", 256), Destination: func(outbox.Message) (string, string) { return "", "" },
	})
	for _, want := range []string{"URL", "Window", "Timeout", "Exchange and Destination", "255"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if _, err := New("amqp://user:secret@host:port/", nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a URL without a port number: %v", err)
	}
}
