package inbox

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/outbox"
)

// delays are short ones, for tests.
func delays() []time.Duration { return []time.Duration{30 * time.Millisecond, 90 * time.Millisecond} }

// dropRetries removes retry topics when the test ends.
func (b *bench) dropRetries(t *testing.T, topic string) {
	names := []string{topic + requeuedSuffix}
	for _, d := range delays() {
		names = append(names, RetryTopic(topic, b.group, d))
	}
	t.Cleanup(func() {
		b.client(t, func(c *kafka.Client) error {
			_, err := c.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: names})
			return err
		})
	})
}

// seen is one call of a handler.
type seen struct {
	m  outbox.Message
	at time.Time
}

// TestRetryTopics follows one message that always fails, and one that is poison, while others pass them.
func TestRetryTopics(t *testing.T) { onBenches(t, testRetryTopics) }

func testRetryTopics(t *testing.T, b *bench) {
	topic := b.topic(t, 1)
	b.dropRetries(t, topic)
	b.publish(t, topic, 0, 20, 2)
	var mu sync.Mutex
	var calls []seen
	c := b.consumer(t, ConsumerConfig{Attempts: 2, RetryDelays: delays()}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		switch m.ID {
		case "id-4":
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, seen{m, time.Now()})
			return errors.New("no \xff stock " + strings.Repeat("é", 1000))
		case "id-9":
			return outbox.Poison(errors.New("no such article"))
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO handled (id, msg_key, body) VALUES (?, ?, ?)`, m.ID, m.Key, string(m.Body))
		return err
	}, topic)
	start(t, c)
	eventually(t, "18 handled, 2 dead", func() bool { s := c.Stats(); return s.Handled == 18 && s.Dead == 2 })
	eventually(t, "all committed", func() bool { return c.Stats().Lag == 0 && b.committed(t, topic, 1) == 20 })
	if s := c.Stats(); s.Retried != 2 || s.Failures != 5 || s.Parked != 0 {
		t.Errorf("%+v: want 2 retries, and 2, 1, 1 and 1 failures", s)
	}
	mu.Lock()
	defer mu.Unlock()
	for i, want := range []struct{ attempts, error string }{{"", ""}, {"", ""}, {"2", "no ? stock"}, {"3", "no ? stock"}} {
		h := calls[i].m.Headers
		if h[HeaderAttempts] != want.attempts || !strings.HasPrefix(h[HeaderError], want.error) || len(h[HeaderError]) > 1100 ||
			!utf8.ValidString(h[HeaderError]) || calls[i].m.Topic != topic || calls[i].m.ID != "id-4" {
			t.Errorf("call %d: %+v", i, calls[i].m)
		}
		if want.attempts == "" {
			continue
		}
		if h[HeaderTopic] != topic || h[HeaderPartition] != "0" || h[HeaderOffset] != "4" || h[HeaderGroup] != b.group ||
			headerTime(h[HeaderFirstFailed]).IsZero() || h[HeaderFirstFailed] != calls[2].m.Headers[HeaderFirstFailed] ||
			calls[i].m.CreatedAt.IsZero() || !calls[i].m.CreatedAt.Equal(calls[0].m.CreatedAt) {
			t.Errorf("call %d: headers %v", i, h)
		}
		if due := headerTime(h[HeaderRetryAt]); due.IsZero() || calls[i].at.Before(due) {
			t.Errorf("call %d at %v, before it was due at %v", i, calls[i].at, due)
		}
	}
	if len(calls) != 4 {
		t.Errorf("%d calls, want 2 in place and 2 retries", len(calls))
	}
}

// TestRetryTopicsSuppressDuplicates: what is handled from a retry topic is known when its original comes again, and
// the other way round.
func TestRetryTopicsSuppressDuplicates(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 10, 10)
	var failed atomic.Int64
	h := func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		if m.Headers[HeaderAttempts] == "" && failed.Add(1) <= 10 {
			return errors.New("not the first time")
		}
		return insertHandled(ctx, tx, m)
	}
	c := b.consumer(t, ConsumerConfig{Attempts: 1, RetryDelays: delays()}, h, topic)
	start(t, c)
	eventually(t, "10 handled at a retry", func() bool { return c.Stats().Handled == 10 && c.Stats().Retried == 10 })
	b.publish(t, topic, 0, 10, 10) // the originals again
	eventually(t, "duplicates", func() bool { return c.Stats().Duplicates == 10 })
	retries := numbered(RetryTopic(topic, b.group, delays()[0]), 0, 10, 10) // and the copies
	if err := errors.Join(b.pub.Publish(t.Context(), retries)...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "duplicates", func() bool { return c.Stats().Duplicates == 20 })
	b.check(t, 10)
}

// TestKeepOrder: messages behind one that fails wait for it in the retry topics, in order; other keys go on; and once
// it is done, or dead, all go on as before.
func TestKeepOrder(t *testing.T) { onBenches(t, testKeepOrder) }

func testKeepOrder(t *testing.T, b *bench) {
	topic := b.topic(t, 2)
	b.dropRetries(t, topic)
	var heal atomic.Bool
	var tries atomic.Int64
	c := b.consumer(t, ConsumerConfig{Attempts: 1, RetryDelays: delays(), KeepOrder: true}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		if m.Key == "key-1" && string(m.Body) == "3" && !heal.Load() { // which dies
			tries.Add(1)
			return errors.New("no stock")
		}
		if m.Key == "key-2" && m.Headers[HeaderAttempts] == "" && string(m.Body) == "5" {
			return errors.New("not the first time")
		}
		return insertHandled(ctx, tx, m)
	}, topic)
	start(t, c)
	b.publish(t, topic, 0, 100, 5)
	eventually(t, "all but the dead one", func() bool { s := c.Stats(); return s.Handled == 99 && s.Dead == 1 })
	if s := c.Stats(); s.Retried != 3 || s.Parked == 0 || tries.Load() != 3 { // how many wait depends on the machine
		t.Errorf("%+v, %d tries: want 2 retries of one and 1 of the other, and messages behind it", s, tries.Load())
	}
	if n := b.parked(t); n != 0 {
		t.Errorf("%d messages are parked at the end", n)
	}
	handled := c.Stats().Parked
	b.publish(t, topic, 100, 10, 5)
	eventually(t, "as before", func() bool { return c.Stats().Handled == 109 && c.Stats().Parked == handled })
	b.inOrder(t, 109)
}

// inOrder wants n messages handled, each once and each key in order, with gaps for those that died.
func (b *bench) inOrder(t testing.TB, n int) {
	t.Helper()
	rows, err := b.db.QueryContext(t.Context(), `SELECT msg_key, body FROM handled ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	last := map[string]int{}
	total := 0
	for rows.Next() {
		var key, body string
		if err := rows.Scan(&key, &body); err != nil {
			t.Fatal(err)
		}
		seq, err := strconv.Atoi(body)
		if was, ok := last[key]; err != nil || ok && seq <= was {
			t.Fatalf("%s: handled %s after %d", key, body, was)
		}
		last[key] = seq
		total++
	}
	if err := rows.Err(); err != nil || total != n {
		t.Fatalf("%d handled, want %d (%v)", total, n, err)
	}
}

// handledOnce wants n messages handled, each once.
func (b *bench) handledOnce(t testing.TB, n int) {
	t.Helper()
	var total, distinct int
	if err := b.db.QueryRowContext(t.Context(), `SELECT count(*), count(DISTINCT id) FROM handled`).Scan(&total, &distinct); err != nil {
		t.Fatal(err)
	}
	if total != n || distinct != n {
		t.Errorf("%d handled, %d of them different, want %d", total, distinct, n)
	}
}

func (b *bench) parked(t testing.TB) (n int) {
	t.Helper()
	if err := b.db.QueryRowContext(t.Context(), `SELECT count(*) FROM amends_inbox_parked`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRetryNames(t *testing.T) {
	for d, want := range map[time.Duration]string{
		5 * time.Second: "5s", time.Minute: "1m", 10 * time.Minute: "10m", 90 * time.Second: "1m30s", time.Hour: "1h",
		90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s", 250 * time.Millisecond: "250ms", 1500 * time.Millisecond: "1.5s",
		20 * time.Second: "20s", 24 * time.Hour: "24h",
	} {
		if got := RetryTopic("orders", "mailer", d); got != "orders.mailer.retry."+want {
			t.Errorf("%v: %s", d, got)
		}
	}
	second := []time.Duration{time.Second}
	for _, tc := range []struct {
		want   string
		topics []string
		group  string
		delays []time.Duration
	}{
		{"use letters", []string{"a"}, "my group", second},
		{"is longer than", []string{strings.Repeat("x", 240)}, "mailer", second},
		{"leave it out", []string{"a", "a.g.retry.1s"}, "g", second},
		{"RetryDelays[1", []string{"a"}, "g", []time.Duration{time.Second, time.Second}},
		{"RetryDelays[0", []string{"a"}, "g", []time.Duration{time.Nanosecond}},
	} {
		_, err := NewConsumer([]string{"127.0.0.1:1"}, tc.group, tc.topics, &sql.DB{}, outbox.SQLite, insertHandled,
			&ConsumerConfig{RetryDelays: tc.delays})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v does not say %q", err, tc.want)
		}
	}
	_, err := NewConsumer([]string{"127.0.0.1:1"}, "g", []string{"a"}, &sql.DB{}, outbox.SQLite, insertHandled,
		&ConsumerConfig{KeepOrder: true, HighWater: 7})
	if err == nil || !strings.Contains(err.Error(), "KeepOrder") || !strings.Contains(err.Error(), "HighWater") {
		t.Errorf("error %v", err)
	}
}

// TestReturnedReadsNonsense: headers of a retry topic are no reason to wait for ever, or to fail.
func TestReturnedReadsNonsense(t *testing.T) {
	rt := &retryTopic{origin: "orders", delay: time.Minute}
	now := time.Now()
	m := outbox.Message{Topic: "x", Headers: map[string]string{
		HeaderAttempts: "-3", HeaderPartition: "?", HeaderOffset: "", HeaderRetryAt: now.Add(time.Hour).Format(time.RFC3339Nano), HeaderCreated: "never",
	}}
	p := rt.returned(&m, 2, 17, now)
	if m.Topic != "orders" || p.attempts != 0 || p.partition != 2 || p.offset != 17 || p.due.After(now.Add(time.Minute)) {
		t.Errorf("%+v", p)
	}
}
