package binlog_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// kafkaLog is where the relays of a fight publish.
type kafkaLog struct {
	Brokers      []string
	Topic, Redis string
}

const fightPartitions = 4

// relay is what a relay's process does until it is killed.
func (l *kafkaLog) relay(box *outbox.Outbox, db *sql.DB, cfg *outbox.RelayConfig) error {
	pub, err := outbox.NewKafka(l.Brokers, &outbox.KafkaConfig{Logger: quiet()})
	if err != nil {
		return err
	}
	defer pub.Close()
	client := redis.NewClient(&redis.Options{Addr: l.Redis})
	defer client.Close()
	if cfg.Keys, err = outbox.NewRedisKeys(client, &outbox.RedisConfig{Prefix: l.Topic + ":", Logger: quiet()}); err != nil {
		return err
	}
	return outbox.NewRelay(box, db, &retopic{pub, l.Topic}, cfg).Run(context.Background())
}

// retopic publishes everything to one topic.
type retopic struct {
	outbox.Publisher
	topic string
}

// Publish implements outbox.Publisher.
func (r *retopic) Publish(ctx context.Context, msgs []outbox.Message) []error {
	for i := range msgs {
		msgs[i].Topic = r.topic
	}
	return r.Publisher.Publish(ctx, msgs)
}

// TestFight has two relays in processes fight for the partitions, from either source: one is stopped for longer than its
// lease and resumed, the other is killed, Kafka restarts and Redis forgets. A consumer sees each message once, in the
// order of its key. AMENDS_LONG=1 does it with Apache Kafka, many times over; AMENDS_RESTARTS=10 only restarts Kafka, so
// many times.
func TestFight(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	restarts, _ := strconv.Atoi(os.Getenv("AMENDS_RESTARTS")) // none: 0
	long := os.Getenv("AMENDS_LONG") != "" || restarts > 0
	broker, restart := startBroker(t, long)
	r := servicestest.StartRedis(t)
	for _, tc := range []struct {
		name string
		mode binlog.Mode
		poll bool
	}{{"poll", binlog.ModeTable, true}, {"table", binlog.ModeTable, false}, {"log", binlog.ModeLog, false}} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fight{harness: newHarness(t, server, tc.mode), restart: restart, poll: tc.poll, took: map[string]time.Duration{},
				log: &kafkaLog{Brokers: []string{broker}, Topic: servicestest.Name(t), Redis: r.Addr}}
			servicestest.CreateTopic(t, f.log.Brokers, kafka.TopicConfig{Topic: f.log.Topic, NumPartitions: fightPartitions, ReplicationFactor: 1})
			rounds := 1
			if long {
				rounds = 3
			}
			if restarts > 0 {
				f.rounds, rounds = f.onlyRestarts, restarts
			} else {
				f.rounds = f.allFaults
			}
			f.run(rounds)
		})
	}
}

// startBroker runs a broker of the test's own; restart kills it, where it is a real one, and starts it again.
func startBroker(t *testing.T, real bool) (addr string, restart func()) {
	t.Helper()
	if real {
		k := servicestest.StartKafka(t)
		return k.Addr, func() { k.Kill(); k.Start() }
	}
	cfg := outboxdev.KafkaConfig{Dir: t.TempDir(), Logger: quiet()}
	k, err := outboxdev.StartKafka(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	cfg.Addr = k.Addr()
	return cfg.Addr, func() {
		k.Close()
		if k, err = outboxdev.StartKafka(&cfg); err != nil {
			t.Fatal(err)
		}
	}
}

// fight is a database, its writers, two relays in processes, a log, and a consumer.
type fight struct {
	*harness
	log     *kafkaLog
	restart func()
	rounds  func(n int)
	poll    bool
	con     *inbox.Consumer
	took    map[string]time.Duration // the longest wait for progress, by when
}

func (f *fight) run(rounds int) {
	f.exec(`CREATE TABLE handled (seq BIGINT AUTO_INCREMENT PRIMARY KEY, msg_key VARCHAR(64), body VARCHAR(64))`)
	end := f.consume()
	stop := f.load(4 * time.Millisecond)
	f.rounds(rounds)
	f.more("at last")
	stop()
	again, total := f.result(func() []outbox.Message { return f.read() })
	before, began := f.con.Stats().Handled, time.Now()
	f.handled(total - again)
	f.until("the last of those that came again", func() bool { return f.con.Stats().Duplicates >= uint64(again) })
	seen := f.con.Stats()
	end()
	f.Logf("the longest waits for progress: %v; at the end %d were still to be handled, which took %v",
		f.took, uint64(total-again)-min(before, uint64(total-again)), time.Since(began).Round(time.Millisecond))
	f.Logf("%d in the log, %d of them again; handled %d, each once and in order, %d suppressed; sources: %s",
		total, again, seen.Handled, seen.Duplicates, map[bool]string{true: "polling", false: "binlog"}[f.poll])
}

// fighter starts a relay in a process.
func (f *fight) fighter() *exec.Cmd { return f.child(child{Log: f.log, Poll: f.poll}) }

// allFaults has each of them happen, so many times.
func (f *fight) allFaults(rounds int) {
	client := redis.NewClient(&redis.Options{Addr: f.log.Redis})
	defer client.Close()
	a, b := f.fighter(), f.fighter()
	for range rounds {
		f.more("at first")
		f.must(a.Process.Signal(syscall.SIGSTOP))
		time.Sleep(1500 * time.Millisecond) // longer than the lease: b takes over
		f.more("while one is stopped")
		f.must(client.FlushAll(context.Background()).Err())
		f.must(a.Process.Signal(syscall.SIGCONT))
		f.more("when it is resumed")
		f.restart()
		f.more("after Kafka's restart")
		f.must(b.Process.Kill())
		_ = b.Wait() // it was killed
		f.more("while the other is dead")
		f.must(client.FlushAll(context.Background()).Err())
		b = f.fighter()
	}
}

// onlyRestarts restarts Kafka alone.
func (f *fight) onlyRestarts(rounds int) {
	f.fighter()
	f.fighter()
	for range rounds {
		f.more("before Kafka's restart")
		f.restart()
		f.more("after Kafka's restart")
	}
}

// consume handles each message in a row of its own, until end.
func (f *fight) consume() (end func()) {
	handle := func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO handled (msg_key, body) VALUES (?, ?)`, m.Key, string(m.Body))
		return err
	}
	var err error
	f.con, err = inbox.NewConsumer(f.log.Brokers, f.log.Topic, []string{f.log.Topic}, f.db, outbox.MySQL, handle,
		&inbox.ConsumerConfig{SessionTimeout: 6 * time.Second, Heartbeat: 100 * time.Millisecond, Backoff: 5 * time.Millisecond,
			MaxBackoff: 100 * time.Millisecond, Logger: slog.New(f.out)})
	f.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.con.Run(ctx) }()
	f.Cleanup(cancel)
	return func() {
		cancel()
		f.must(<-done)
	}
}

// more waits until the consumer has handled some that are new.
func (f *fight) more(when string) {
	f.Helper()
	n, began := f.con.Stats().Handled, time.Now()
	f.until("messages "+when, func() bool { return f.con.Stats().Handled > n+50 })
	f.took[when] = max(f.took[when], time.Since(began).Round(10*time.Millisecond))
}

// read reads the log, one partition after the other.
func (f *fight) read() (msgs []outbox.Message) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for p := range fightPartitions {
		conn, err := kafka.DialLeader(ctx, "tcp", f.log.Brokers[0], f.log.Topic, p)
		f.must(err)
		last, err := conn.ReadLastOffset()
		f.must(err)
		_ = conn.Close() // it was only read from
		r := kafka.NewReader(kafka.ReaderConfig{
			Brokers: f.log.Brokers, Topic: f.log.Topic, Partition: p, MinBytes: 1, MaxBytes: 8 << 20, MaxWait: 20 * time.Millisecond,
		})
		for at := int64(-1); at+1 < last; {
			m, err := r.ReadMessage(ctx)
			f.must(err)
			msgs, at = append(msgs, outbox.Message{Key: string(m.Key), Body: m.Value}), m.Offset
		}
		f.must(r.Close())
	}
	return msgs
}

// handled wants n rows, each key's in order and without a gap. Writers are faster than the consumer and went on while
// there was no broker: how long this takes is a matter of how long that was, so it waits as long as there is progress.
func (f *fight) handled(n int) {
	f.Helper()
	for count := -1; count < n; {
		before := count
		f.until(fmt.Sprintf("more than %d of %d handled", before, n), func() bool {
			time.Sleep(50 * time.Millisecond) // between two polls: counting is work for the consumer's database
			f.must(f.db.QueryRow(`SELECT COUNT(*) FROM handled`).Scan(&count))
			return count > before
		})
	}
	rows, err := f.db.Query(`SELECT msg_key, body FROM handled ORDER BY seq`)
	f.must(err)
	defer rows.Close()
	next := map[string]int{}
	for rows.Next() {
		var key string
		var seq int
		f.must(rows.Scan(&key, &seq))
		if seq != next[key]+1 {
			f.Fatalf("%s: handled %d behind %d", key, seq, next[key])
		}
		next[key] = seq
		n--
	}
	f.must(rows.Err())
	if n != 0 {
		f.Errorf("%d handled too few, or too many below zero", n)
	}
}
