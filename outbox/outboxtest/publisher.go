package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// PublisherHarness is what TestPublisher needs of one kind of publisher and of
// the log behind it. What it makes is taken away at the end of the test it was
// made for.
type PublisherHarness struct {
	// New makes a publisher, which makes no topics.
	New func(t testing.TB) outbox.Publisher
	// Topic makes a topic that nobody else uses: whatever a message of that topic
	// needs to arrive and to be read.
	Topic func(t testing.TB) string
	// Missing answers with a topic that is not there, and a function that makes it.
	Missing func(t testing.TB) (topic string, make func())
	// Read answers with all that a topic holds, first to last per key, from its
	// beginning: also with what an earlier call has answered.
	Read func(t testing.TB, topic string) []outbox.Message
	// Creating makes a publisher that makes missing topics; nil when the kind
	// cannot.
	Creating func(t testing.TB) outbox.Publisher
	// TooLarge is the size of a body, in bytes, that is too large for publishers
	// of New. 100,000 bytes are not.
	TooLarge int
	// Unreachable makes a publisher whose server is not there.
	Unreachable func(t testing.TB) outbox.Publisher
	// Restarts end the server and start it again, with its data; by name, for
	// TestPublisherRestarts.
	Restarts map[string]func()
}

// TestPublisher is the suite that every Publisher passes, with
// TestPublisherRestarts.
func TestPublisher(t *testing.T, h PublisherHarness) {
	for _, c := range []struct {
		name string
		test func(*publisherTest)
	}{
		{"round trip", (*publisherTest).roundTrip},
		{"nothing", (*publisherTest).nothing},
		{"order per key", (*publisherTest).order},
		{"one key", (*publisherTest).oneKey},
		{"many callers", (*publisherTest).manyCallers},
		{"missing topic", (*publisherTest).missing},
		{"topic made", (*publisherTest).creating},
		{"too large", (*publisherTest).tooLarge},
		{"ended context", (*publisherTest).endedContext},
		{"context ends amid", (*publisherTest).contextEndsAmid},
		{"unreachable", (*publisherTest).unreachable},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(&publisherTest{t, h}) })
	}
}

// TestPublisherRestarts is the rest of the suite: the server ends amid the work.
func TestPublisherRestarts(t *testing.T, h PublisherHarness) {
	for _, name := range slices.Sorted(maps.Keys(h.Restarts)) {
		t.Run("restart by "+name, func(t *testing.T) { (&publisherTest{t, h}).restart(h.Restarts[name]) })
	}
}

// publisherTest is one test of the suite.
type publisherTest struct {
	*testing.T

	h PublisherHarness
}

// publishPatience bounds what may take long on a busy machine.
const publishPatience = time.Minute

// roundTrip: what arrives is what was sent, byte for byte.
func (p *publisherTest) roundTrip() {
	topic := p.h.Topic(p)
	any256 := make([]byte, 256)
	for i := range any256 {
		any256[i] = byte(i)
	}
	noNUL := string(any256[1:])
	sent := []outbox.Message{
		{ID: "plain", Key: "k", Body: []byte("body"), Headers: map[string]string{"a": "b", "empty": "", "content-type": "text/plain"}},
		{ID: "empty"},
		{ID: "any bytes", Key: noNUL, Body: any256, Headers: map[string]string{noNUL[:outbox.MaxHeaderName]: string(any256)}},
		{ID: noNUL[:outbox.MaxID], Key: "\xff\xfe", Body: []byte{}, Headers: map[string]string{" ": " x ", ":": "%41", "%": "\r\n", "é": "日本"}},
		{ID: strings.Repeat("i", outbox.MaxID), Key: strings.Repeat("k", outbox.MaxKey), Headers: manyHeaders()},
		{ID: "names", Key: "k", Headers: map[string]string{ // that mean something to one log or another
			"CC": "c", "BCC": "b", "x-match": "all", "Nats-Msg-Id": "n", "nats-rollup": "all", "amends-key": "other",
			"Status": "503", "ce_id": "mine", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		}},
		{ID: "large", Key: "k", Body: []byte(strings.Repeat("0123456789", 10_000))},
	}
	for i := range sent {
		sent[i].Topic, sent[i].CreatedAt = topic, time.Now()
	}
	p.all(p.h.New(p), sent)
	got := map[string]outbox.Message{}
	for _, m := range p.h.Read(p, topic) {
		got[m.ID] = m
	}
	for _, want := range sent {
		m, ok := got[want.ID]
		if !ok {
			p.Errorf("message %q did not arrive", want.ID)
			continue
		}
		if m.Key != want.Key || m.Topic != topic || string(m.Body) != string(want.Body) {
			p.Errorf("message %q became topic %q, key %q, body %q", want.ID, m.Topic, m.Key, m.Body)
		}
		for name, value := range want.Headers {
			if v, there := m.Headers[name]; !there || v != value {
				p.Errorf("message %q: header %q is %q (there: %v), want %q", want.ID, name, v, there, value)
			}
		}
	}
	if len(got) != len(sent) {
		p.Errorf("%d messages arrived, want %d", len(got), len(sent))
	}
}

func manyHeaders() map[string]string {
	headers := map[string]string{}
	for i := range outbox.MaxHeaders {
		headers[fmt.Sprint("header-", i)] = strings.Repeat("v", i)
	}
	return headers
}

func (p *publisherTest) nothing() {
	pub := p.h.New(p)
	for _, msgs := range [][]outbox.Message{nil, {}} {
		if errs := pub.Publish(p.Context(), msgs); len(errs) != 0 {
			p.Errorf("no messages: %v", errs)
		}
	}
}

// missing: the topic's messages fail and wait, the others are not held up.
func (p *publisherTest) missing() {
	topic := p.h.Topic(p)
	missing, create := p.h.Missing(p)
	pub := p.h.New(p)
	msgs := []outbox.Message{
		{ID: "a", Topic: topic, Key: "a"}, {ID: "b", Topic: missing, Key: "b"}, {ID: "c", Topic: topic, Key: "c"},
		{ID: "b2", Topic: missing, Key: "b"}, {ID: "d", Topic: topic}, {ID: "e", Topic: missing}, {ID: "c2", Topic: topic, Key: "c"},
	}
	var last []error
	p.until("all but the missing topic's", func() bool { // the first failure may be a reason to connect anew
		last = p.publish(pub, msgs)
		return len(last) == len(msgs) && last[0] == nil && last[2] == nil && last[4] == nil && last[6] == nil
	})
	if last[1] == nil || errors.Is(last[1], outbox.ErrPoison) || !strings.Contains(last[1].Error(), missing) {
		p.Errorf("a missing topic: %v; want an error that names it and may pass", last[1])
	}
	if last[3] == nil || errors.Is(last[3], outbox.ErrPoison) || last[5] == nil || errors.Is(last[5], outbox.ErrPoison) {
		p.Errorf("other messages of it: %v, %v", last[3], last[5])
	}
	create()
	p.all(pub, []outbox.Message{msgs[1], msgs[3], msgs[5]})
	if got := ids(first(p.h.Read(p, missing)), "b"); got != "b b2" {
		p.Errorf("the topic that was made holds %q of the key, want b b2", got)
	}
	if got := ids(first(p.h.Read(p, topic)), "c"); got != "c c2" {
		p.Errorf("the other topic holds %q of its key, want c c2", got)
	}
}

func (p *publisherTest) creating() {
	if p.h.Creating == nil {
		p.Log("publishers of this kind make no topics")
		return
	}
	missing, _ := p.h.Missing(p)
	p.all(p.h.Creating(p), []outbox.Message{{ID: "1", Topic: missing, Key: "k"}, {ID: "2", Topic: missing, Key: "k"}})
	if got := ids(first(p.h.Read(p, missing)), "k"); got != "1 2" {
		p.Errorf("the topic that was made holds %q, want 1 2", got)
	}
}

// tooLarge: a message that is too large is poison, and holds its key and no other.
func (p *publisherTest) tooLarge() {
	topic := p.h.Topic(p)
	pub := p.h.New(p)
	large := outbox.Message{ID: "large", Topic: topic, Key: "k", Body: make([]byte, p.h.TooLarge)}
	msgs := []outbox.Message{
		{ID: "1", Topic: topic, Key: "k"}, large, {ID: "3", Topic: topic, Key: "k"}, {ID: "4", Topic: topic, Key: "k"},
	}
	errs := p.publish(pub, msgs)
	if len(errs) != 4 || errs[0] != nil || !errors.Is(errs[1], outbox.ErrPoison) {
		p.Fatalf("results %v, want the second to be poison", errs)
	}
	for _, err := range errs[2:] {
		if !errors.Is(err, outbox.ErrHeld) || errors.Is(err, outbox.ErrPoison) {
			p.Errorf("behind it: %v, want ErrHeld", err)
		}
	}
	p.all(pub, msgs[2:])
	if got := ids(first(p.h.Read(p, topic)), "k"); got != "1 3 4" {
		p.Errorf("the topic holds %q, want 1 3 4", got)
	}
}

// endedContext: nothing is sent for a caller who has gone.
func (p *publisherTest) endedContext() {
	topic := p.h.Topic(p)
	pub := p.h.New(p)
	p.all(pub, numbered(topic, 0, 1, 1)) // there is a connection
	ctx, cancel := context.WithCancel(p.Context())
	cancel()
	errs := pub.Publish(ctx, numbered(topic, 1, 3, 1))
	if len(errs) != 3 || !errors.Is(errs[0], context.Canceled) || errs[1] == nil || errs[2] == nil {
		p.Errorf("results %v, want the context's error", errs)
	}
	if n := len(p.h.Read(p, topic)); n != 1 {
		p.Errorf("%d messages arrived, want 1", n)
	}
}

func (p *publisherTest) unreachable() {
	pub := p.h.Unreachable(p)
	for range 3 { // the later ones by the publisher's backoff
		ctx, cancel := context.WithTimeout(p.Context(), time.Second)
		errs := pub.Publish(ctx, numbered("orders", 0, 3, 1))
		cancel()
		if len(errs) != 3 || errs[0] == nil || errs[1] == nil || errs[2] == nil || errors.Is(errs[0], outbox.ErrPoison) {
			p.Fatalf("results %v, want errors that may pass", errs)
		}
	}
}
