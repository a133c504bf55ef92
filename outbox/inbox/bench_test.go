package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// long tells whether the harnesses run for as long as it takes to find rare faults (AMENDS_LONG=1), or only for as long
// as it takes to show what each of them is for.
var long = os.Getenv("AMENDS_LONG") != ""

// scaled is a count for a short run, and one for a long run.
func scaled(short, most int) int {
	if long {
		return most
	}
	return short
}

var silent = slog.New(slog.DiscardHandler)

// bench is a broker, a database and a publisher; and a Redis where it is asked for.
type bench struct {
	brokers []string
	redis   func(t *testing.T) (addr string, stop func())
	db      *sql.DB
	dsn     string // of MySQL
	d       *outbox.Dialect
	group   string
	pub     *outbox.KafkaPublisher
}

// quickFencing lets a killed broker in again sooner, and its partitions go to others sooner.
var quickFencing = []string{"broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=300"}

// onBenches runs a test on what runs in a process, and on the real servers, at
// the same time: most of it is waiting.
func onBenches(t *testing.T, fn func(t *testing.T, b *bench)) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) { t.Parallel(); fn(t, inProcess(t)) })
	t.Run("servers", func(t *testing.T) {
		t.Parallel()
		b := servers(t)
		b.connect(t, servicestest.Kafka(t)...)
		fn(t, b)
	})
}

// inProcess is a bench on what runs in a process.
func inProcess(t *testing.T) *bench {
	t.Helper()
	k, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	b := embedded(t)
	b.connect(t, k.Addr())
	return b
}

// restartable is inProcess with a broker that the test may restart, with its data.
func restartable(t *testing.T) (b *bench, restart func()) {
	t.Helper()
	cfg := outboxdev.KafkaConfig{Dir: t.TempDir(), Logger: silent}
	k, err := outboxdev.StartKafka(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	cfg.Addr = k.Addr()
	b = embedded(t)
	b.connect(t, k.Addr())
	return b, func() {
		k.Close()
		if k, err = outboxdev.StartKafka(&cfg); err != nil {
			t.Fatal(err)
		}
	}
}

const handledSQLite = `CREATE TABLE handled (seq INTEGER PRIMARY KEY, id TEXT, msg_key TEXT, body TEXT)`

func embedded(t *testing.T) *bench {
	return &bench{
		db: openDB(t, "sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "db")), outbox.SQLite, handledSQLite),
		d:  outbox.SQLite,
		redis: func(t *testing.T) (string, func()) {
			r, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Logger: silent})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.Close)
			return r.Addr(), r.Close
		},
	}
}

func servers(t *testing.T) *bench {
	dsn := servicestest.MySQL(t)
	return &bench{
		dsn: dsn,
		db: openDB(t, "mysql", dsn, outbox.MySQL,
			`CREATE TABLE handled (seq BIGINT AUTO_INCREMENT PRIMARY KEY, id TEXT, msg_key TEXT, body TEXT)`),
		d: outbox.MySQL,
		redis: func(t *testing.T) (string, func()) {
			r := servicestest.StartRedis(t)
			return r.Addr, r.Stop
		},
	}
}

func openDB(t *testing.T, driver, dsn string, d *outbox.Dialect, handled string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(64)
	t.Cleanup(func() { db.Close() })
	if err := outbox.Migrate(t.Context(), db, d); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), handled); err != nil {
		t.Fatal(err)
	}
	return db
}

func (b *bench) connect(t *testing.T, brokers ...string) {
	t.Helper()
	pub, err := outbox.NewKafka(brokers, &outbox.KafkaConfig{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	b.brokers, b.group, b.pub = brokers, servicestest.Name(t), pub
}

// topic makes a topic that nobody else uses. A test may make its dead letters' topic.
func (b *bench) topic(t *testing.T, partitions int) string {
	t.Helper()
	topic := servicestest.Topic(t, b.brokers, partitions)
	t.Cleanup(func() {
		b.client(t, func(c *kafka.Client) error {
			_, err := c.DeleteTopics(context.Background(), &kafka.DeleteTopicsRequest{Topics: []string{topic + deadSuffix}})
			return err
		})
	})
	return topic
}

// client lends a client of the brokers.
func (b *bench) client(t testing.TB, fn func(c *kafka.Client) error) {
	t.Helper()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	if err := fn(&kafka.Client{Addr: kafka.TCP(b.brokers...), Transport: tr, Timeout: 10 * time.Second}); err != nil {
		t.Error(err)
	}
}

func insertHandled(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO handled (id, msg_key, body) VALUES (?, ?, ?)`, m.ID, m.Key, string(m.Body))
	return err
}

// publish writes numbered messages.
func (b *bench) publish(t testing.TB, topic string, from, n, keys int) {
	t.Helper()
	if err := errors.Join(b.pub.Publish(t.Context(), numbered(topic, from, n, keys))...); err != nil {
		t.Fatal(err)
	}
}

// numbered makes n messages over some keys; the body is the number within the key.
func numbered(topic string, from, n, keys int) []outbox.Message {
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		at := from + i
		msgs[i] = outbox.Message{
			ID: fmt.Sprintf("id-%d", at), Topic: topic, Key: fmt.Sprintf("key-%d", at%keys), Body: fmt.Append(nil, at/keys),
		}
	}
	return msgs
}

func (b *bench) consumer(t testing.TB, cfg ConsumerConfig, h Handler, topics ...string) *Consumer {
	t.Helper()
	cfg.Logger = silent
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = 6 * time.Second // brokers take no less by default
	}
	cfg.Heartbeat = 50 * time.Millisecond
	if cfg.Backoff == 0 {
		cfg.Backoff = 5 * time.Millisecond
	}
	c, err := NewConsumer(b.brokers, b.group, topics, b.db, b.d, h, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs a consumer; stop ends it and waits.
func start(t testing.TB, c *Consumer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the consumer did not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

// check wants n messages handled, each once and each key in order.
func (b *bench) check(t testing.TB, n int) {
	t.Helper()
	rows, err := b.db.QueryContext(t.Context(), `SELECT msg_key, body FROM handled ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	next := map[string]int{}
	total := 0
	for rows.Next() {
		var key, body string
		if err := rows.Scan(&key, &body); err != nil {
			t.Fatal(err)
		}
		if body != fmt.Sprint(next[key]) {
			t.Fatalf("%s: handled %s, want %d", key, body, next[key])
		}
		next[key]++
		total++
	}
	if err := rows.Err(); err != nil || total != n {
		t.Fatalf("%d handled, want %d (%v)", total, n, err)
	}
}

func (b *bench) committed(t testing.TB, topic string, partitions int) (sum int64) {
	t.Helper()
	parts := make([]int, partitions)
	for i := range parts {
		parts[i] = i
	}
	b.client(t, func(c *kafka.Client) error {
		res, err := c.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: b.group, Topics: map[string][]int{topic: parts}})
		if err != nil {
			return err
		}
		for _, p := range res.Topics[topic] {
			sum += max(0, p.CommittedOffset)
		}
		return nil
	})
	return sum
}
