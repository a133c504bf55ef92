package outbox

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// faultyNet dials connections whose answers can be lost: the broker does its work, the client never hears of it.
type faultyNet struct {
	lose atomic.Int64 // produce requests whose answers are still to be lost
	lost atomic.Int64
}

func (f *faultyNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, net: f}, nil
}

// losing publishes until the answers to n requests were lost, and returns the last
// results. In the short time that it gives the publisher, a slow broker may not
// even answer to what comes before a request.
func (f *faultyNet) losing(t *testing.T, p *KafkaPublisher, n int64, msgs []Message) (errs []error) {
	t.Helper()
	f.lose.Store(1 << 30)
	for late := time.Now().Add(patience); f.lost.Load() < n; {
		if errs = p.Publish(t.Context(), msgs); errs == nil || time.Now().After(late) {
			t.Fatalf("results %v, %d answers lost", errs, f.lost.Load())
		}
	}
	f.lose.Store(0)
	return errs
}

type faultyConn struct {
	net.Conn
	net  *faultyNet
	size int
	head []byte
	doom bool
}

// Write watches for the head of a request: size, then the API key, of which 0 is Produce.
func (c *faultyConn) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if len(c.head) < 6 {
			n := min(6-len(c.head), len(rest))
			c.head = append(c.head, rest[:n]...)
			if rest = rest[n:]; len(c.head) < 6 {
				break
			}
			c.size = (int(c.head[0])<<24 | int(c.head[1])<<16 | int(c.head[2])<<8 | int(c.head[3])) - 2
			if c.head[4] == 0 && c.head[5] == 0 && c.net.lose.Add(-1) >= 0 {
				c.doom = true
			}
		}
		n := min(c.size, len(rest))
		c.size -= n
		if rest = rest[n:]; c.size == 0 {
			c.head = c.head[:0]
		}
	}
	return c.Conn.Write(b)
}

func (c *faultyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.doom && err == nil {
		c.net.lost.Add(1)
		c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func TestLostAnswersMakeNoDuplicates(t *testing.T) { onKafka(t, testLostAnswersMakeNoDuplicates) }

func testLostAnswersMakeNoDuplicates(t *testing.T, k *testBroker) {
	topic := k.topic(t, 3)
	p := newPublisher(t, KafkaConfig{BatchBytes: 3000}, k.addr)
	var faults faultyNet
	p.transport.Dial = faults.dial
	for round := range 10 {
		faults.lose.Store(int64(round % 4))
		if errs := p.Publish(t.Context(), series(topic, round*100, 100, 7)); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	if faults.lost.Load() < 10 {
		t.Fatalf("only %d answers were lost", faults.lost.Load())
	}
	checkSeries(t, k.addr, topic, 1000, 7)
}

func TestUnknownFateIsResolvedByTheNextCall(t *testing.T) {
	onKafka(t, testUnknownFateIsResolvedByTheNextCall)
}

func testUnknownFateIsResolvedByTheNextCall(t *testing.T, k *testBroker) {
	topic := k.topic(t, 2)
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 200 * time.Millisecond, BatchBytes: 2000}, k.addr)
	var faults faultyNet
	p.transport.Dial = faults.dial
	msgs := series(topic, 0, 60, 5)
	if errs := faults.losing(t, p, 2, msgs[:40]); len(errs) != 40 || errs[0] == nil {
		t.Fatalf("results %v", errs)
	}
	p.cfg.BatchBytes = 1 << 20 // batches made now would begin and end elsewhere
	publishAllOf(t, p, msgs)
	checkSeries(t, k.addr, topic, 60, 5)
}

func TestGivenUpBatchIsFenced(t *testing.T) { onKafka(t, testGivenUpBatchIsFenced) }

func testGivenUpBatchIsFenced(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	var faults faultyNet
	p.transport.Dial = faults.dial
	p.cfg.DeliveryTimeout = time.Minute // until it knows the topic and has a producer id
	publishAllOf(t, p, []Message{{ID: "-", Topic: topic, Body: []byte("-")}})
	p.cfg.DeliveryTimeout = 200 * time.Millisecond
	faults.lose.Store(1 << 30)
	if errs := p.Publish(t.Context(), []Message{{ID: "a", Topic: topic, Body: []byte("a")}}); errs == nil {
		t.Fatal("acknowledged without an answer")
	}
	faults.lose.Store(0)
	before := p.producer.current
	publishAllOf(t, p, []Message{{ID: "b", Topic: topic, Body: []byte("b")}})
	if after := p.producer.current; after.id != before.id || after.epoch != before.epoch+1 {
		t.Errorf("producer %v became %v, want the next epoch", before, after)
	}
	var got []string
	for _, r := range readLog(t, k.addr, topic)[0] {
		got = append(got, string(r.value))
	}
	if strings.Join(got, "") != "-ab" {
		t.Errorf("log is %q, want -, a and b", got)
	}
}

// TestMessagesWithoutIDAreNotMistaken: what has no ID is never taken for the batch whose fate is unknown.
func TestMessagesWithoutIDAreNotMistaken(t *testing.T) {
	onKafka(t, testMessagesWithoutIDAreNotMistaken)
}

func testMessagesWithoutIDAreNotMistaken(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1)
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 500 * time.Millisecond}, k.addr)
	var faults faultyNet
	p.transport.Dial = faults.dial
	faults.losing(t, p, 1, []Message{{Topic: topic, Key: "k", Body: []byte("a")}})
	p.cfg.DeliveryTimeout = 15 * time.Second // b has no ID either: the test must not publish it twice
	publishAllOf(t, p, []Message{{Topic: topic, Key: "k", Body: []byte("b")}})
	if got := letters(t, k, topic); got != "ab" {
		t.Errorf("log %q, want a and b", got)
	}
}

// TestBlameForARefusedBatch: a batch of an earlier call is refused when it is sent again, by a call that has a message in
// front of it. That one is not to blame.
func TestBlameForARefusedBatch(t *testing.T) {
	c := startCluster(t, 1)
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 100 * time.Millisecond}, c.ListenAddrs()...)
	away := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	msgs := one("orders", "ab")
	if errs := p.Publish(t.Context(), msgs[1:]); errs == nil {
		t.Fatal("acknowledged without replicas")
	}
	away.Remove()
	h := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.MessageTooLarge, Count: 1})
	defer h.Remove()
	errs := p.Publish(t.Context(), msgs)
	if len(errs) != 2 || errors.Is(errs[0], ErrPoison) || !errors.Is(errs[1], ErrPoison) {
		t.Errorf("results %v: want the second to be poison", errs)
	}
	publishAllOf(t, p, msgs[:1])
	if got := letters(t, &testBroker{addr: c.ListenAddrs()[0]}, "orders"); got != "a" {
		t.Errorf("log %q", got)
	}
}

// TestDuplicateIsAnAcknowledgement: a broker that remembers the batch, and no longer where it is, says so in an error.
func TestDuplicateIsAnAcknowledgement(t *testing.T) {
	c := startCluster(t, 1)
	p := newPublisher(t, KafkaConfig{}, c.ListenAddrs()...)
	h := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.DuplicateSequenceNumber, Count: 1})
	defer h.Remove()
	if errs := p.Publish(t.Context(), one("orders", "a")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	if got := letters(t, &testBroker{addr: c.ListenAddrs()[0]}, "orders"); got != "" {
		t.Errorf("log %q: it was sent again", got)
	}
}
