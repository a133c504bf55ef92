package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

func newPublisher(t testing.TB, cfg KafkaConfig, addr ...string) *KafkaPublisher {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	p, err := NewKafka(addr, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// series makes n messages over some keys; the body is the number within the key.
func series(topic string, from, n, keys int) []Message {
	msgs := make([]Message, n)
	for i := range msgs {
		at := from + i
		msgs[i] = Message{
			ID: fmt.Sprintf("id-%d", at), Topic: topic, Key: fmt.Sprintf("key-%d", at%keys), Body: fmt.Append(nil, at/keys),
			CreatedAt: time.Now(),
		}
	}
	return msgs
}

// readLog reads all partitions of a topic to their ends.
func readLog(t testing.TB, addr, topic string) [][]decoded {
	t.Helper()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(addr), Transport: tr, Timeout: 10 * time.Second}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	meta, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil || meta.Topics[0].Error != nil {
		t.Fatal(err, meta.Topics[0].Error)
	}
	out := make([][]decoded, len(meta.Topics[0].Partitions))
	for part := range out {
		for next := int64(0); ; {
			res, err := c.Fetch(ctx, &kafka.FetchRequest{
				Topic: topic, Partition: part, Offset: next, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 10 * time.Millisecond,
			})
			if err = errors.Join(err); err != nil || res.Error != nil {
				t.Fatal(err, res)
			}
			for {
				rec, err := res.Records.ReadRecord()
				if errors.Is(err, io.EOF) {
					break
				}
				d := decoded{offset: rec.Offset, headers: map[string]string{}}
				d.key, _ = kafka.ReadAll(rec.Key)
				d.value, _ = kafka.ReadAll(rec.Value)
				for _, h := range rec.Headers {
					d.headers[h.Key] = string(h.Value)
				}
				if rec.Offset >= next {
					out[part] = append(out[part], d)
					next = rec.Offset + 1
				}
			}
			if next >= res.HighWatermark {
				break
			}
		}
	}
	return out
}

// checkSeries wants series(…, 0, n, keys) in the log: each message once, each key in order and in one partition.
func checkSeries(t testing.TB, addr, topic string, n, keys int) {
	t.Helper()
	next := map[string]int{}
	total := 0
	for part, records := range readLog(t, addr, topic) {
		for _, r := range records {
			total++
			if want := fmt.Sprint(next[string(r.key)]); string(r.value) != want {
				t.Fatalf("%s/%d offset %d: key %s has %s, want %s", topic, part, r.offset, r.key, r.value, want)
			}
			next[string(r.key)]++
		}
	}
	if total != n {
		t.Fatalf("%d messages in the log, want %d", total, n)
	}
}

// publishAllOf publishes as a relay does: what failed again, until all is acknowledged.
func publishAllOf(t testing.TB, p *KafkaPublisher, msgs []Message) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(msgs) > 0; {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		errs := p.Publish(ctx, msgs)
		cancel()
		var rest []Message
		for i, err := range errs {
			if err != nil {
				rest = append(rest, msgs[i])
			}
		}
		if len(rest) > 0 && time.Now().After(deadline) {
			t.Fatal(errors.Join(errs...))
		}
		msgs = rest
	}
}

func TestPublishKeepsOrderPerKey(t *testing.T) { onKafka(t, testPublishKeepsOrderPerKey) }

func testPublishKeepsOrderPerKey(t *testing.T, k *testBroker) {
	topic := k.topic(t, 5)
	p := newPublisher(t, KafkaConfig{BatchBytes: 4000, Compression: kafka.Zstd}, k.addr)
	for from := 0; from < 2000; from += 500 {
		if errs := p.Publish(t.Context(), series(topic, from, 500, 37)); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	checkSeries(t, k.addr, topic, 2000, 37)
	if errs := p.Publish(t.Context(), nil); errs != nil {
		t.Errorf("no messages: %v", errs)
	}
}

func TestPublishFromManyCallers(t *testing.T) { onKafka(t, testPublishFromManyCallers) }

func testPublishFromManyCallers(t *testing.T, k *testBroker) {
	orders, other := k.topic(t, 4), k.topic(t, 2)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	var wg sync.WaitGroup
	for caller := range 6 {
		wg.Go(func() {
			for n := range 10 {
				var msgs []Message
				for i := range 20 {
					msgs = append(msgs, Message{
						ID: fmt.Sprint(caller, n, i), Topic: [...]string{orders, other}[i%2],
						Key: fmt.Sprintf("caller-%d-%d", caller, i%2), Body: fmt.Append(nil, n*10+i/2),
					})
				}
				if errs := p.Publish(t.Context(), msgs); errs != nil {
					t.Error(errors.Join(errs...))
				}
			}
		})
	}
	wg.Wait()
	checkSeries(t, k.addr, orders, 600, 1)
	checkSeries(t, k.addr, other, 600, 1)
}

func TestMissingTopic(t *testing.T) { onKafka(t, testMissingTopic) }

func testMissingTopic(t *testing.T, k *testBroker) {
	topic, missing, created := k.topic(t, 1), servicestest.Name(t), servicestest.Name(t)
	p := newPublisher(t, KafkaConfig{}, k.addr)
	msgs := append(series(missing, 0, 2, 1), series(topic, 0, 1, 1)...)
	msgs = append(msgs, Message{ID: "x", Topic: "not a topic"})
	errs := p.Publish(t.Context(), msgs)
	if len(errs) != 4 || errs[0] == nil || errors.Is(errs[0], ErrPoison) || errs[1] == nil || errs[2] != nil {
		t.Fatalf("results %v", errs)
	}
	if s := errs[0].Error(); !strings.Contains(s, missing+`" does not exist`) || !strings.Contains(s, "CreateTopics") {
		t.Errorf("the error does not tell what to do: %s", s)
	}
	if !errors.Is(errs[3], ErrPoison) {
		t.Errorf("an impossible topic: %v", errs[3])
	}
	k.createTopic(t, missing, 1)
	publishAllOf(t, p, series(missing, 0, 2, 1))

	p = newPublisher(t, KafkaConfig{CreateTopics: true, Partitions: 3}, k.addr)
	t.Cleanup(func() { deleteTopic(t, k.addr, created) })
	if errs := p.Publish(t.Context(), series(created, 0, 10, 2)); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	if n := len(readLog(t, k.addr, created)); n != 3 {
		t.Errorf("the created topic has %d partitions, want 3", n)
	}
}

func TestTooLargeIsPoison(t *testing.T) { onKafka(t, testTooLargeIsPoison) }

func testTooLargeIsPoison(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "20000"})
	p := newPublisher(t, KafkaConfig{}, k.addr)
	msgs := series(topic, 0, 200, 1)
	for i := range msgs { // also more than the limit together, though not one by one
		msgs[i].Headers = map[string]string{"fill": strings.Repeat("f", 500)}
	}
	large := msgs[70]
	large.Body = make([]byte, 30_000)
	msgs[70].Body, large.ID = []byte("70"), "large"
	sent := append(append(append([]Message{}, msgs[:70]...), large), msgs[70:]...)
	errs := p.Publish(t.Context(), sent)
	if len(errs) != 201 {
		t.Fatalf("%d results", len(errs))
	}
	for i, err := range errs {
		switch {
		case i < 70 && err != nil:
			t.Fatalf("message %d: %v", i, err)
		case i == 70 && (!errors.Is(err, ErrPoison) || !strings.Contains(err.Error(), "max.message.bytes")):
			t.Fatalf("the large one: %v", err)
		case i > 70 && (!errors.Is(err, ErrHeld) || errors.Is(err, ErrPoison)):
			t.Fatalf("message %d behind it: %v", i, err)
		}
	}
	if errs := p.Publish(t.Context(), sent[71:]); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	checkSeries(t, k.addr, topic, 200, 1)
}

func TestUnreachableBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 300 * time.Millisecond}, addr)
	start := time.Now()
	errs := p.Publish(t.Context(), series("orders", 0, 3, 1))
	if len(errs) != 3 || errs[0] == nil || errs[1] == nil || errs[2] == nil || errors.Is(errs[0], ErrPoison) {
		t.Fatalf("results %v", errs)
	}
	if !strings.Contains(errs[0].Error(), addr) {
		t.Errorf("the error does not name the broker: %v", errs[0])
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if errs := p.Publish(ctx, series("orders", 0, 1, 1)); len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("cancelled before it began: %v", errs)
	}
}

func TestWrongKafkaConfig(t *testing.T) {
	_, err := NewKafka([]string{"nonsense"}, &KafkaConfig{Compression: 9, BatchBytes: -1})
	for _, want := range []string{"nonsense", "Compression", "BatchBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if _, err := NewKafka(nil, nil); err == nil {
		t.Error("NewKafka took no brokers")
	}
}

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
	faults.lose.Store(1 << 30)
	errs := p.Publish(t.Context(), msgs[:40])
	if len(errs) != 40 || errs[0] == nil || faults.lost.Load() < 2 {
		t.Fatalf("results %v, %d answers lost", errs, faults.lost.Load())
	}
	faults.lose.Store(0)
	p.cfg.BatchBytes = 1 << 20 // batches made now would begin and end elsewhere
	publishAllOf(t, p, msgs)
	checkSeries(t, k.addr, topic, 60, 5)
}

func TestGivenUpBatchIsFenced(t *testing.T) { onKafka(t, testGivenUpBatchIsFenced) }

func testGivenUpBatchIsFenced(t *testing.T, k *testBroker) {
	topic := k.topic(t, 1)
	p := newPublisher(t, KafkaConfig{DeliveryTimeout: 200 * time.Millisecond}, k.addr)
	var faults faultyNet
	p.transport.Dial = faults.dial
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
	if strings.Join(got, "") != "ab" {
		t.Errorf("log is %q, want a and b", got)
	}
}

func TestBrokerRestarts(t *testing.T) {
	onOwnKafka(t, func(t *testing.T, k *testBroker) {
		topic := k.topic(t, 3)
		p := newPublisher(t, KafkaConfig{}, k.addr)
		publishAllOf(t, p, series(topic, 0, 300, 7))
		var restart sync.WaitGroup
		restart.Go(k.restart)
		for from := 300; from < 900; from += 100 { // before, meanwhile and after
			publishAllOf(t, p, series(topic, from, 100, 7))
		}
		restart.Wait()
		publishAllOf(t, p, series(topic, 900, 300, 7))
		checkSeries(t, k.addr, topic, 1200, 7)
	})
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

func deleteTopic(t testing.TB, addr, topic string) {
	t.Helper()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	c := &kafka.Client{Addr: kafka.TCP(addr), Transport: tr, Timeout: 10 * time.Second}
	if _, err := c.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic}}); err != nil {
		t.Logf("topic %q stays: %v", topic, err)
	}
}

func BenchmarkKafkaPublish(b *testing.B) {
	k := startBroker(b, outboxdev.KafkaConfig{Dir: b.TempDir(), Topics: map[string]int{"orders": 4}})
	for _, size := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			p := newPublisher(b, KafkaConfig{}, k.Addr())
			msgs := series("orders", 0, size, 100)
			for i := range msgs {
				msgs[i].Body = make([]byte, 200)
			}
			b.ResetTimer()
			for n := 0; n < b.N; n += size {
				for i := range msgs {
					msgs[i].ID = fmt.Sprint("id-", n+i)
				}
				if errs := p.Publish(b.Context(), msgs); errs != nil {
					b.Fatal(errors.Join(errs...))
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
