package outbox

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/amends-dev/amends/deploy/servicestest"
)

// An epoch does not wrap: a new producer id follows the last one. And replace asks the brokers.
func TestProducerSessions(t *testing.T) {
	asked := int64(0)
	k := &kafkaProducer{log: slog.New(slog.DiscardHandler), init: func(context.Context) (kafkaSession, error) {
		asked++
		return kafkaSession{asked, 0}, nil
	}}
	last := kafkaSession{7, math.MaxInt16}
	k.current, k.known = last, true
	s, err := k.bump(t.Context(), last, "test")
	if err != nil || s != (kafkaSession{1, 0}) {
		t.Errorf("after the last epoch: %v, %v", s, err)
	}
	if s, err = k.replace(t.Context(), s, "test"); err != nil || s != (kafkaSession{2, 0}) {
		t.Errorf("replaced: %v, %v", s, err)
	}
	if s, err = k.bump(t.Context(), s, "test"); err != nil || s != (kafkaSession{2, 1}) || asked != 2 {
		t.Errorf("bumped: %v, %v, asked %d times", s, err, asked)
	}
	// Who comes second, with the session that another has renewed already, finds the work done.
	for name, renew := range map[string]func(context.Context, kafkaSession, string) (kafkaSession, error){
		"bump": k.bump, "replace": k.replace,
	} {
		if s, err := renew(t.Context(), kafkaSession{2, 0}, "test"); err != nil || s != (kafkaSession{2, 1}) || asked != 2 {
			t.Errorf("%s of a session that is not the current one: %v, %v, asked %d times", name, s, err, asked)
		}
	}
	k.init = func(context.Context) (kafkaSession, error) { return noKafkaSession, errors.New("no broker") }
	if s, err := k.replace(t.Context(), kafkaSession{2, 1}, "test"); err == nil || s != noKafkaSession {
		t.Errorf("replaced without a broker: %v, %v", s, err)
	}
	if s, err := k.session(t.Context()); err != nil || s != (kafkaSession{2, 1}) {
		t.Errorf("the session after that: %v, %v", s, err)
	}
}

// one makes a message of each letter, all of one key.
func one(topic, letters string) []Message {
	var msgs []Message
	for _, l := range strings.Split(letters, "") {
		msgs = append(msgs, Message{ID: l, Topic: topic, Key: "k", Body: []byte(l)})
	}
	return msgs
}

// letters is the log of partition 0.
func letters(t *testing.T, k *testBroker, topic string) string {
	t.Helper()
	var got strings.Builder
	for _, r := range readLog(t, k.addr, topic)[0] {
		got.Write(r.value)
	}
	return got.String()
}

// TestSequenceNumbersWrap: after 2,147,483,647 comes 0, as Kafka counts. It takes any number as a producer's first,
// which kfake does not.
func TestSequenceNumbersWrap(t *testing.T) {
	k := &testBroker{addr: servicestest.Kafka(t)[0]}
	topic := k.topic(t, 1)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	session, err := p.producer.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	part := p.partition(topic, 0)
	part.session, part.next = session, math.MaxInt32-4 // as after two billion messages
	for _, step := range []struct {
		send string
		next int32
	}{{"abc", math.MaxInt32 - 1}, {"def", 1}, {"gh", 3}} { // the second batch goes across the end
		if errs := p.Publish(t.Context(), one(topic, step.send)); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
		if part.next != step.next {
			t.Errorf("after %s: the next sequence number is %d, want %d", step.send, part.next, step.next)
		}
	}
	if got := letters(t, k, topic); got != "abcdefgh" || p.producer.current != session {
		t.Errorf("log %q; producer %v became %v: the broker lost its count", got, session, p.producer.current)
	}
}

// TestBrokerLostTheTail: it knows fewer batches of ours than it has acknowledged, and refuses the next (as after an
// unclean election): a new epoch begins to count anew.
func TestBrokerLostTheTail(t *testing.T) { onKafka(t, testBrokerLostTheTail) }

func testBrokerLostTheTail(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	publishAllOf(t, p, one(topic, "ab"))
	before := p.producer.current
	p.partition(topic, 0).next += 5
	if errs := p.Publish(t.Context(), one(topic, "cd")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	if errs := p.Publish(t.Context(), one(topic, "ef")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	if after := p.producer.current; after.id != before.id || after.epoch != before.epoch+1 {
		t.Errorf("producer %v became %v, want one epoch more", before, after)
	}
	if got := letters(t, k, topic); got != "abcdef" {
		t.Errorf("log %q", got)
	}
}

// TestFencedProducer: the broker has seen a higher epoch of our id. Counting epochs up to it would be no end, so there
// is a new id.
func TestFencedProducer(t *testing.T) { onKafka(t, testFencedProducer) }

func testFencedProducer(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1)
	p, other := newPublisher(t, KafkaConfig{}, k.addr), newPublisher(t, KafkaConfig{}, k.addr)
	publishAllOf(t, p, one(topic, "ab"))
	before := p.producer.current
	other.producer.current, other.producer.known = kafkaSession{before.id, 1000}, true
	publishAllOf(t, other, one(topic, "cd"))
	if errs := p.Publish(t.Context(), one(topic, "ef")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	if after := p.producer.current; after.id == before.id {
		t.Errorf("producer %v became %v, want another id", before, after)
	}
	if got := letters(t, k, topic); got != "abcdef" {
		t.Errorf("log %q", got)
	}
}
