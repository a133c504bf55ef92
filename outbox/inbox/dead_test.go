package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
)

// bury has a group give up every message of a topic whose id is in the log.
func (b *bench) bury(t *testing.T, topic string, n int) {
	t.Helper()
	c := b.consumer(t, ConsumerConfig{Attempts: 1}, func(context.Context, *sql.Tx, outbox.Message) error { return errors.New("no stock") }, topic)
	stop := start(t, c)
	eventually(t, "all dead", func() bool { return c.Stats().Dead == uint64(n) && c.Stats().Lag == 0 })
	stop()
}

// TestDeadLettersAreListed pages through them, from either end, with and without a filter.
func TestDeadLettersAreListed(t *testing.T) { onBenches(t, testDeadLettersAreListed) }

func testDeadLettersAreListed(t *testing.T, b *bench) {
	topic := b.topic(t, 3)
	b.dropRetries(t, topic)
	d := b.dead(t, topic)
	if all, next, err := d.List(t.Context(), DeadLetterQuery{Limit: 1}); err != nil || len(all) != 0 || next != "" {
		t.Errorf("without a topic: %v, %q, %v", all, next, err)
	}
	const n = 650 // more than one look backward for each partition
	b.lay(t, topic, n)
	for _, q := range []DeadLetterQuery{
		{Limit: 150}, {Limit: 150, Newest: true}, {Limit: 1000}, {Limit: 1000, Newest: true},
		{Limit: 50, DeadLetterFilter: DeadLetterFilter{Key: "key-3"}}, {Limit: 50, Newest: true, DeadLetterFilter: DeadLetterFilter{Key: "key-3", Group: b.group}},
		{Limit: 1, DeadLetterFilter: DeadLetterFilter{ID: "id-77"}}, {Limit: 1, DeadLetterFilter: DeadLetterFilter{Group: "other"}},
	} {
		all := b.listAll(t, d, q)
		want := map[bool]int{true: n, false: 0}[q.Group != "other"]
		if q.Key != "" {
			want = n / 5
		}
		if q.ID != "" {
			want = 1
		}
		if len(all) != want {
			t.Errorf("%+v: %d letters, want %d", q, len(all), want)
		}
		checkListed(t, q, all)
	}
	_, next, err := d.List(t.Context(), DeadLetterQuery{Limit: 7})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []DeadLetterQuery{{Limit: 0}, {Limit: 1, Page: next, Newest: true}, {Limit: 1, Page: "o?"}, {Limit: 1, Page: next + ".1.1.1.1.1.1"}} {
		if _, _, err := d.List(t.Context(), q); err == nil {
			t.Errorf("%+v was taken", q)
		}
	}
	b.checkGet(t, d, topic)
}

// lay publishes n dead letters as a consumer does.
func (b *bench) lay(t *testing.T, topic string, n int) {
	t.Helper()
	servicestest.CreateTopic(t, b.brokers, kafka.TopicConfig{Topic: DeadTopic(topic), NumPartitions: 3, ReplicationFactor: 1})
	letters := numbered(DeadTopic(topic), 0, n, 5)
	g := &generation{c: &Consumer{group: b.group}}
	for i := range letters {
		it := &item{record: record{message: letters[i], place: place{offset: int64(i)}}}
		it.message.Topic, it.message.CreatedAt = topic, time.Now()
		m := g.copyOf(it, 1, errors.New("no stock"))
		letters[i].Headers = m.Headers
	}
	for some := range slices.Chunk(letters, 100) {
		if err := errors.Join(b.pub.Publish(t.Context(), some)...); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) listAll(t *testing.T, d *DeadLetters, q DeadLetterQuery) (all []DeadLetter) {
	t.Helper()
	for {
		page, next, err := d.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, page...); next == "" {
			return all
		}
		if len(page) != q.Limit {
			t.Fatalf("%+v: a page of %d, and there are more", q, len(page))
		}
		q.Page = next
	}
}

func checkListed(t *testing.T, q DeadLetterQuery, all []DeadLetter) {
	t.Helper()
	seen, last := map[string]bool{}, map[int]int64{}
	for i, l := range all {
		if seen[l.Message.ID] {
			t.Fatalf("%+v: %s twice", q, l.Message.ID)
		}
		seen[l.Message.ID] = true
		if was, ok := last[l.Partition]; ok && l.Offset > was == q.Newest {
			t.Fatalf("%+v: %d/%d after %d", q, l.Partition, l.Offset, was)
		}
		last[l.Partition] = l.Offset
		if i > 0 && l.Failed.Before(all[i-1].Failed.Add(-time.Second)) && !q.Newest {
			t.Fatalf("%+v: %v after %v", q, l.Failed, all[i-1].Failed)
		}
		if len(l.Message.Body) > 0 || l.Size == 0 {
			t.Fatalf("%+v: a list with bodies, or without their sizes: %+v", q, l)
		}
	}
}

func (b *bench) checkGet(t *testing.T, d *DeadLetters, topic string) {
	t.Helper()
	at := b.listAll(t, d, DeadLetterQuery{Limit: 1, DeadLetterFilter: DeadLetterFilter{ID: "id-77"}})[0]
	l, err := d.Get(t.Context(), at.Partition, at.Offset)
	if err != nil || l.Message.ID != "id-77" || l.Message.Key != "key-2" || string(l.Message.Body) != "15" || l.Message.Topic != topic ||
		l.Group != b.group || l.Attempts != 1 || l.Error != "no stock" || l.Failed.IsZero() || l.FirstFailed.IsZero() || l.OriginOffset < 0 ||
		l.Requeued != nil || l.Message.CreatedAt.IsZero() {
		t.Errorf("got %+v, %v", l, err)
	}
	for name := range l.Message.Headers {
		if strings.HasPrefix(name, "amends-") {
			t.Errorf("its own headers have %s", name)
		}
	}
	for _, at := range []deadPlace{{99, 0}, {0, 1 << 40}, {-1, 0}} {
		if _, err := d.Get(t.Context(), at.partition, at.offset); !errors.Is(err, ErrNoDeadLetter) {
			t.Errorf("at %v: %v", at, err)
		}
	}
}

// TestRequeue: what is requeued is handled once, in order, by the group that gave it up, however often it is requeued;
// another group that has handled it knows it.
func TestRequeue(t *testing.T) { onBenches(t, testRequeue) }

func testRequeue(t *testing.T, b *bench) {
	topic := b.topic(t, 2)
	b.dropRetries(t, topic)
	const n = 60
	b.publish(t, topic, 0, n, 5)
	b.bury(t, topic, n)
	d := b.dead(t, topic)
	var wrong []error
	for _, req := range []RequeueRequest{{Reason: "r", Offset: -1}, {All: true, Offset: -1}, {Reason: "r", Partition: 9, Offset: 5}} {
		_, err := d.Requeue(t.Context(), req)
		wrong = append(wrong, err)
	}
	if slices.Contains(wrong, nil) {
		t.Errorf("wrong requests: %v", wrong)
	}
	c := b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	start(t, c)
	requeue := func(req RequeueRequest, want int) {
		t.Helper()
		req.Reason, req.Actor = "ticket 7", "me"
		if res, err := d.Requeue(t.Context(), req); err != nil || res.Requeued != want || res.Left != 0 {
			t.Fatalf("%+v: %+v, %v; want %d", req, res, err, want)
		}
	}
	byKey := RequeueRequest{Offset: -1, DeadLetterFilter: DeadLetterFilter{Key: "key-3"}}
	dry := byKey
	dry.DryRun = true
	requeue(dry, n/5)
	requeue(byKey, n/5)
	requeue(byKey, 0)
	eventually(t, "a key handled", func() bool { return c.Stats().Handled == n/5 })
	byKey.Requeued = true
	requeue(byKey, n/5)
	eventually(t, "duplicates", func() bool { return c.Stats().Duplicates == n/5 })
	one := b.listAll(t, d, DeadLetterQuery{Limit: 1, DeadLetterFilter: DeadLetterFilter{ID: "id-0"}})[0]
	requeue(RequeueRequest{Partition: one.Partition, Offset: one.Offset}, 1)
	if l, err := d.Get(t.Context(), one.Partition, one.Offset); err != nil || l.Requeued == nil || l.Requeued.Reason != "ticket 7" || l.Requeued.Actor != "me" {
		t.Errorf("requeued %+v, %v", l, err)
	}
	requeue(RequeueRequest{All: true, Offset: -1}, n-n/5-1)
	eventually(t, "all handled", func() bool { return c.Stats().Handled == n })
	b.check(t, n)
	if all := b.listAll(t, d, DeadLetterQuery{Limit: 50}); len(all) != 0 {
		t.Errorf("%d letters wait still", len(all))
	}
	if all := b.listAll(t, d, DeadLetterQuery{Limit: 50, DeadLetterFilter: DeadLetterFilter{Requeued: true}}); len(all) != n {
		t.Errorf("%d letters in all", len(all))
	}
}

// TestRequeueDies in the middle, before what it publishes, or after it and before the record of it: the next one
// publishes it, perhaps again, which consumers know, and misses nothing.
func TestRequeueDies(t *testing.T) {
	t.Parallel()
	b := inProcess(t)
	topic := b.topic(t, 2)
	const n = 250
	b.publish(t, topic, 0, n, 5)
	b.bury(t, topic, n)
	c := b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	start(t, c)
	for at := range 4 { // dies at one batch after the other, and at its record
		d := b.dead(t, topic)
		dies := &dyingPublisher{Publisher: d.pub, suffix: []string{requeuedSuffix, topic}[at%2]}
		dies.left.Store(int64(at / 2))
		d.pub = dies
		if res, err := d.Requeue(t.Context(), RequeueRequest{All: true, Offset: -1, Reason: "r"}); !errors.Is(err, errDied) {
			t.Fatalf("%+v, %v; want it dead", res, err)
		}
	}
	d := b.dead(t, topic)
	if _, err := d.Requeue(t.Context(), RequeueRequest{All: true, Offset: -1, Reason: "r"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all handled", func() bool { return c.Stats().Handled == n && c.Stats().Lag == 0 })
	if b.check(t, n); c.Stats().Duplicates == 0 {
		t.Error("nothing was published twice: the test shows nothing")
	}
	if all := b.listAll(t, d, DeadLetterQuery{Limit: 500}); len(all) != 0 {
		t.Errorf("%d letters wait still", len(all))
	}
}

// dyingPublisher dies instead of publishing to a topic, once some calls are through.
type dyingPublisher struct {
	outbox.Publisher
	suffix string
	left   atomic.Int64
}

func (p *dyingPublisher) Publish(ctx context.Context, msgs []outbox.Message) []error {
	if len(msgs) > 0 && strings.HasSuffix(msgs[0].Topic, p.suffix) && p.left.Add(-1) < 0 {
		errs := make([]error, len(msgs))
		for i := range errs {
			errs[i] = errDied
		}
		return errs
	}
	return p.Publisher.Publish(ctx, msgs)
}

// TestRequeueLeavesWhatHasNoBody, and says where the original is.
func TestRequeueLeavesWhatHasNoBody(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	letters := []outbox.Message{
		{ID: "cut", Topic: DeadTopic(topic), Key: "k", Headers: map[string]string{HeaderBody: "left out: 7 bytes", HeaderPartition: "3", HeaderOffset: "9"}},
		{ID: "whole", Topic: DeadTopic(topic), Key: "k", Headers: map[string]string{HeaderTopic: "elsewhere"}},
	}
	pub, err := outbox.NewKafka(b.brokers, &outbox.KafkaConfig{CreateTopics: true, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	if err := errors.Join(pub.Publish(t.Context(), letters)...); err != nil {
		t.Fatal(err)
	}
	res, err := b.dead(t, topic).Requeue(t.Context(), RequeueRequest{All: true, Offset: -1, Reason: "r"})
	if err != nil || res.Requeued != 1 || res.Left != 1 || len(res.Refused) != 1 || res.Refused[0].OriginOffset != 9 || res.Refused[0].OriginPartition != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	var got atomic.Value
	c := b.consumer(t, ConsumerConfig{}, func(_ context.Context, _ *sql.Tx, m outbox.Message) error { got.Store(m.ID); return nil }, topic)
	start(t, c)
	eventually(t, "the whole one is back in its own topic", func() bool { return c.Stats().Handled == 1 && got.Load() == "whole" })
}

// TestDoneCacheForgetsDeadLetters: what was given up is not marked as done, so that it can come back.
func TestDoneCacheForgetsDeadLetters(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 3, 1)
	var done memDone
	c := b.consumer(t, ConsumerConfig{Attempts: 1, Done: &done, RetryDelays: delays()[:1], KeepOrder: true, CommitInterval: time.Millisecond},
		func(context.Context, *sql.Tx, outbox.Message) error { return fmt.Errorf("no") }, topic)
	start(t, c)
	eventually(t, "all dead", func() bool { return c.Stats().Dead == 3 && c.Stats().Lag == 0 })
	copies := numbered(RetryTopic(topic, b.group, delays()[0]), 0, 3, 1)
	for i := range copies {
		copies[i].Headers = map[string]string{headerTurn: "1"}
	}
	if err := errors.Join(b.pub.Publish(t.Context(), copies)...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "copies of them are gone", func() bool { return c.Stats().Duplicates == 3 && c.Stats().Lag == 0 })
	if n := done.marked.Load(); n != 0 {
		t.Errorf("%d dead letters are marked as done", n)
	}
}
