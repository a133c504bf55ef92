package inbox

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/amends-dev/amends/outbox"
)

func TestConsumerHandlesOnceInOrder(t *testing.T) { onBenches(t, testConsumerHandlesOnceInOrder) }

func testConsumerHandlesOnceInOrder(t *testing.T, b *bench) {
	topic := b.topic(t, 3)
	b.publish(t, topic, 0, 300, 11)
	c := b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	stop := start(t, c)
	eventually(t, "300 handled", func() bool { return c.Stats().Handled == 300 })
	b.publish(t, topic, 300, 100, 11)
	b.publish(t, topic, 0, 50, 11) // the same ids again
	eventually(t, "all seen", func() bool { return c.Stats().Handled+c.Stats().Duplicates == 450 })
	stop()
	b.check(t, 400)
	if s := c.Stats(); s != (ConsumerStats{Fetched: s.Fetched, Handled: 400, Duplicates: 50}) || s.Fetched < 450 {
		t.Errorf("stats %+v", s)
	}
	if n := b.committed(t, topic, 3); n != 450 {
		t.Errorf("%d offsets committed, want 450", n)
	}
}

// TestKeysRunInParallel has one message of each key wait for the others, before their transactions: SQLite runs these
// one at a time.
func TestKeysRunInParallel(t *testing.T) { onBenches(t, testKeysRunInParallel) }

func testKeysRunInParallel(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 30, 3)
	var together sync.WaitGroup
	together.Add(3)
	c := b.consumer(t, ConsumerConfig{Concurrency: 3, Attempts: 1, DeadLetters: publishFunc(func(m outbox.Message) {
		if string(m.Body) == "0" {
			together.Done()
			together.Wait()
		}
	})}, func(context.Context, *sql.Tx, outbox.Message) error { return outbox.Poison(errors.New("no")) }, topic)
	start(t, c)
	eventually(t, "all dead", func() bool { return c.Stats().Dead == 30 })
}

type publishFunc func(m outbox.Message)

func (f publishFunc) Publish(_ context.Context, msgs []outbox.Message) []error {
	for _, m := range msgs {
		f(m)
	}
	return nil
}

func TestSlowKeyHoldsUpNoOther(t *testing.T) { onBenches(t, testSlowKeyHoldsUpNoOther) }

func testSlowKeyHoldsUpNoOther(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 100, 5)
	var heal atomic.Bool
	c := b.consumer(t, ConsumerConfig{Attempts: 1 << 30, MaxBackoff: 20 * time.Millisecond},
		func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
			if m.Key == "key-2" && !heal.Load() {
				return errors.New("not yet")
			}
			return insertHandled(ctx, tx, m)
		}, topic)
	stop := start(t, c)
	eventually(t, "the other keys are handled", func() bool { return c.Stats().Handled == 80 })
	eventually(t, "offset committed up to the gap", func() bool { return b.committed(t, topic, 1) == 2 })
	heal.Store(true)
	eventually(t, "all handled", func() bool { return c.Stats().Handled == 100 })
	stop()
	b.check(t, 100)
	if n := b.committed(t, topic, 1); n != 100 {
		t.Errorf("%d offsets committed, want 100", n)
	}
}

func TestDeadLetters(t *testing.T) { onBenches(t, testDeadLetters) }

func testDeadLetters(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 20, 2)
	c := b.consumer(t, ConsumerConfig{Attempts: 3}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		switch m.ID {
		case "id-4":
			panic("card is on fire")
		case "id-9":
			return outbox.Poison(errors.New("no such article"))
		}
		return insertHandled(ctx, tx, m)
	}, topic)
	stop := start(t, c)
	eventually(t, "18 handled, 2 dead", func() bool { s := c.Stats(); return s.Handled == 18 && s.Dead == 2 })
	stop()
	if f := c.Stats().Failures; f != 4 {
		t.Errorf("%d failures, want 3 and 1", f)
	}
	if n := b.committed(t, topic, 1); n != 20 {
		t.Errorf("%d offsets committed, want 20", n)
	}
	var mu sync.Mutex
	var dead []outbox.Message
	d := b.consumer(t, ConsumerConfig{Source: "operator"}, func(_ context.Context, _ *sql.Tx, m outbox.Message) error {
		mu.Lock()
		defer mu.Unlock()
		dead = append(dead, m)
		return nil
	}, topic+deadSuffix)
	stop = start(t, d)
	eventually(t, "dead letters read", func() bool { return d.Stats().Handled == 2 })
	stop()
	slices.SortFunc(dead, func(a, b outbox.Message) int { return strings.Compare(a.ID, b.ID) })
	for i, want := range []map[string]string{
		{"amends-error": "card is on fire", "amends-attempts": "3", "amends-offset": "4"},
		{"amends-error": "no such article", "amends-attempts": "1", "amends-offset": "9"},
	} {
		m := dead[i]
		want["amends-topic"], want["amends-partition"], want["amends-group"], want["ce_type"] = topic, "0", b.group, topic
		for name, value := range want {
			if !strings.Contains(m.Headers[name], value) {
				t.Errorf("%s: header %s is %q, want %q", m.ID, name, m.Headers[name], value)
			}
		}
		if m.ID != []string{"id-4", "id-9"}[i] || m.Key != []string{"key-0", "key-1"}[i] {
			t.Errorf("dead letter %s of %s", m.ID, m.Key)
		}
	}
}

func TestCrashBeforeOffsetCommit(t *testing.T) { onBenches(t, testCrashBeforeOffsetCommit) }

func testCrashBeforeOffsetCommit(t *testing.T, b *bench) {
	topic := b.topic(t, 2)
	b.publish(t, topic, 0, 200, 7)
	c := b.consumer(t, ConsumerConfig{CommitInterval: time.Hour}, insertHandled, topic)
	// The crash: a generation whose offsets never reach the broker.
	gen := &generation{c: c, handling: t.Context(), slots: make(chan struct{}, 1), chains: map[chainKey]*chain{}}
	ended, end := context.WithCancel(t.Context())
	for part := range 2 {
		tr := newTracker(topic, part, 0)
		tr.bound(1000, 1<<20)
		gen.workers.Go(func() error { return gen.fetch(ended, tr) })
	}
	eventually(t, "some are handled", func() bool { return c.Stats().Handled > 120 })
	end()
	if err := gen.workers.Wait(); err != nil {
		t.Fatal(err)
	}
	before := c.Stats().Handled
	if n := b.committed(t, topic, 2); n != 0 {
		t.Fatalf("%d offsets are committed", n)
	}
	c = b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	stop := start(t, c)
	eventually(t, "all seen", func() bool { return c.Stats().Handled+c.Stats().Duplicates == 200 })
	stop()
	b.check(t, 200)
	if s := c.Stats(); s.Duplicates != before {
		t.Errorf("%d duplicates, want %d", s.Duplicates, before)
	}
}

func TestRebalanceUnderLoad(t *testing.T) { onBenches(t, testRebalanceUnderLoad) }

func testRebalanceUnderLoad(t *testing.T, b *bench) {
	topic := b.topic(t, 6)
	total := func(cs ...*Consumer) (n uint64) {
		for _, c := range cs {
			n += c.Stats().Handled
		}
		return n
	}
	one, two, three := b.consumer(t, ConsumerConfig{}, insertHandled, topic), b.consumer(t, ConsumerConfig{}, insertHandled, topic),
		b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	start(t, one)
	stopTwo := start(t, two)
	var published atomic.Int64
	load, shared := make(chan struct{}), make(chan struct{})
	share := sync.OnceFunc(func() { close(shared) })
	t.Cleanup(func() { share(); <-load })
	go func() { // until all three had their share, and a little longer
		defer close(load)
		for left := scaled(3, 5); left > 0; {
			select {
			case <-shared:
				left--
			default:
			}
			eventually(t, "room", func() bool { return published.Load() < int64(total(one, two, three))+150 || t.Failed() })
			b.publish(t, topic, int(published.Load()), 50, 23)
			published.Add(50)
		}
	}()
	eventually(t, "two share", func() bool { return one.Stats().Handled > 50 && two.Stats().Handled > 50 })
	start(t, three)
	eventually(t, "the third has its share", func() bool { return three.Stats().Handled > 50 })
	share()
	stopTwo()
	<-load
	eventually(t, "all handled", func() bool { return total(one, two, three) == uint64(published.Load()) })
	b.check(t, int(published.Load()))
}

func TestDrainFinishesWhatRuns(t *testing.T) { onBenches(t, testDrainFinishesWhatRuns) }

func testDrainFinishesWhatRuns(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 10, 1)
	entered, release := make(chan struct{}, 10), make(chan struct{})
	c := b.consumer(t, ConsumerConfig{}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		entered <- struct{}{}
		<-release
		return insertHandled(ctx, tx, m)
	}, topic)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	<-entered
	cancel()
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	handled := int(c.Stats().Handled) // more than one if they were quicker than the news of the end
	if handled == 0 {
		t.Error("what was running did not finish")
	}
	b.check(t, handled)
	if n := b.committed(t, topic, 1); n != int64(handled) {
		t.Errorf("%d offsets committed for %d messages handled", n, handled)
	}
}

func TestNothingBeginsAfterTheGeneration(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	g := &generation{c: &Consumer{}, slots: make(chan struct{}, 1)}
	for range 50 {
		if g.persist(ended, &item{tracker: &tracker{}}, true, func() (bool, error) { t.Error("it began"); return true, nil }) {
			t.Fatal("it was settled")
		}
	}
}

func TestDoneCacheSavesTransactionsOnly(t *testing.T) {
	onBenches(t, testDoneCacheSavesTransactionsOnly)
}

func testDoneCacheSavesTransactionsOnly(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	addr, stop := b.redis(t)
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer client.Close()
	keys, err := outbox.NewRedisKeys(client, &outbox.RedisConfig{Logger: silent, Timeout: time.Minute, Pause: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b.publish(t, topic, 0, 50, 3)
	c := b.consumer(t, ConsumerConfig{Done: keys}, insertHandled, topic)
	start(t, c)
	eventually(t, "50 handled", func() bool { return c.Stats().Handled == 50 })
	eventually(t, "marked", func() bool { n, _ := client.DBSize(t.Context()).Result(); return n == 50 })
	if _, err := b.db.ExecContext(t.Context(), `DELETE FROM amends_inbox`); err != nil { // only the cache knows now
		t.Fatal(err)
	}
	b.publish(t, topic, 0, 50, 3)
	eventually(t, "50 duplicates", func() bool { return c.Stats().Duplicates == 50 })
	b.check(t, 50)
	stop() // an outage: the claims do the work
	b.publish(t, topic, 50, 50, 3)
	eventually(t, "100 handled", func() bool { return c.Stats().Handled == 100 })
	b.publish(t, topic, 50, 50, 3)
	eventually(t, "100 duplicates", func() bool { return c.Stats().Duplicates == 100 })
}

// TestBrokerRestartUnderConsumer has the broker in process; TestLeadersMove has the real ones.
func TestBrokerRestartUnderConsumer(t *testing.T) {
	t.Parallel()
	b, restart := restartable(t)
	topic := b.topic(t, 2)
	c := b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	start(t, c)
	b.publish(t, topic, 0, 100, 5)
	eventually(t, "100 handled", func() bool { return c.Stats().Handled == 100 })
	restart()
	b.publish(t, topic, 100, 100, 5)
	eventually(t, "200 handled", func() bool { return c.Stats().Handled == 200 })
	b.check(t, 200)
}

func TestDatabaseOutageCostsNoAttempt(t *testing.T) { onBenches(t, testDatabaseOutageCostsNoAttempt) }

func testDatabaseOutageCostsNoAttempt(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	if _, err := b.db.ExecContext(t.Context(), `ALTER TABLE amends_inbox RENAME TO away`); err != nil {
		t.Fatal(err)
	}
	b.publish(t, topic, 0, 5, 1)
	c := b.consumer(t, ConsumerConfig{Attempts: 2, MaxBackoff: 10 * time.Millisecond}, insertHandled, topic)
	start(t, c)
	eventually(t, "it tries on", func() bool { return c.Stats().Failures > 10 })
	if _, err := b.db.ExecContext(t.Context(), `ALTER TABLE away RENAME TO amends_inbox`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "5 handled", func() bool { return c.Stats().Handled == 5 })
	if s := c.Stats(); s.Dead != 0 {
		t.Errorf("%d dead letters", s.Dead)
	}
}

func TestWrongConsumerConfig(t *testing.T) {
	_, err := NewConsumer([]string{"nonsense"}, "", []string{strings.Repeat("x", 248)}, nil, nil, nil,
		&ConsumerConfig{Buffer: -1, Heartbeat: time.Minute})
	for _, want := range []string{"nonsense", "no group", "no room", "database", "dialect", "handler", "Buffer", "Heartbeat"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s: %v", want, err)
		}
	}
}
