package servicestest

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/services"
)

func TestMySQLGivesEachItsOwnDatabase(t *testing.T) {
	var names []string
	t.Run("used", func(t *testing.T) {
		for range 2 {
			db, err := sql.Open("mysql", MySQL(t))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec("CREATE TABLE t (k VARCHAR(20) PRIMARY KEY)"); err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec("INSERT INTO t VALUES ('a'), ('A')"); err != nil {
				t.Errorf("the collation does not tell cases apart: %v", err)
			}
			var name string
			if err := db.QueryRow("SELECT DATABASE()").Scan(&name); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	})
	if len(names) < 2 {
		t.SkipNow() // the reason is above
	}
	db, err := sql.Open("mysql", MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var left int
	err = db.QueryRow("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN (?, ?)", names[0], names[1]).Scan(&left)
	if err != nil || left != 0 || names[0] == names[1] {
		t.Errorf("%d of %q left after the test: %v", left, names, err)
	}
}

func TestTopicIsReadyAndGone(t *testing.T) {
	brokers := Kafka(t)
	c := &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: 10 * time.Second}
	var topic string
	t.Run("used", func(t *testing.T) {
		topic = Topic(t, brokers, 2)
		w := &kafka.Writer{Addr: kafka.TCP(brokers...), Topic: topic, BatchTimeout: time.Millisecond, MaxAttempts: 1, RequiredAcks: kafka.RequireAll}
		if err := errors.Join(w.WriteMessages(t.Context(), kafka.Message{Value: []byte("v")}), w.Close()); err != nil {
			t.Errorf("the first write to a new topic: %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		meta, err := c.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
		if err == nil && errors.Is(meta.Topics[0].Error, kafka.UnknownTopicOrPartition) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the topic stays after the test: %+v, %v", meta, err)
		}
	}
}

func TestRedisOfATestsOwn(t *testing.T) {
	s := StartRedis(t, "--maxmemory", "3mb")
	c := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, ReadTimeout: 200 * time.Millisecond})
	defer c.Close()
	if got, err := c.ConfigGet(t.Context(), "maxmemory").Result(); err != nil || got["maxmemory"] != "3145728" {
		t.Errorf("maxmemory: %v, %v", got, err)
	}
	s.Pause()
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Error("a paused server answers")
	}
	s.Resume()
	s.Kill()
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Error("a killed server answers")
	}
	s.Start()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	s.Stop()
	if err := services.Ping(t.Context(), services.Redis, s.Addr); err == nil {
		t.Error("a stopped server answers")
	}
}

func TestMySQLOfATestsOwnKeepsItsData(t *testing.T) {
	s := StartMySQL(t, "--max-connections=7")
	db, err := sql.Open("mysql", NewDatabase(t, s.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var flush, connections int
	err = db.QueryRow("SELECT @@innodb_flush_log_at_trx_commit, @@max_connections").Scan(&flush, &connections)
	if err != nil || flush != 1 || connections != 10 { // MariaDB's least is 10
		t.Errorf("flush %d, connections %d, %v", flush, connections, err)
	}
	if _, err := db.Exec("CREATE TABLE t AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	s.Start()
	var n int
	for range 3 { // a pooled connection may be a dead one
		if err = db.QueryRow("SELECT n FROM t").Scan(&n); err == nil {
			break
		}
	}
	if err != nil || n != 1 {
		t.Errorf("after SIGKILL: %d, %v", n, err)
	}
}

// fakeT records how a test ended.
type fakeT struct {
	testing.TB

	said, how string
}

func (f *fakeT) Helper()                    {}
func (f *fakeT) Context() context.Context   { return context.Background() }
func (f *fakeT) Skipf(s string, a ...any)   { f.end("skip", s, a) }
func (f *fakeT) Fatalf(s string, a ...any)  { f.end("fatal", s, a) }
func (f *fakeT) end(how, s string, a []any) { f.how, f.said = how, s; panic(f) }

func TestMissingSkipsOrFails(t *testing.T) {
	for required, want := range map[string]string{"": "skip", "1": "fatal"} {
		t.Setenv(services.RequireEnv, required)
		f := &fakeT{}
		func() {
			defer func() {
				if recover() != f {
					t.Error("it went on without a service")
				}
			}()
			missing(f, services.Kafka, "no Java")
		}()
		if f.how != want || !strings.HasPrefix(f.said, "no %s") {
			t.Errorf("required %q: %s %q, want %s", required, f.how, f.said, want)
		}
	}
	t.Setenv(services.Redis.Env(), "127.0.0.1:1")
	f := &fakeT{}
	func() {
		defer func() { _ = recover() }()
		Redis(f)
	}()
	if f.how != "fatal" {
		t.Errorf("a service that the environment names and that does not answer: %q, want a failure", f.how)
	}
}

func TestKafkaOfATestsOwnKeepsItsLog(t *testing.T) {
	s := StartKafka(t, "message.max.bytes=20000")
	topic := Topic(t, []string{s.Addr}, 1)
	w := &kafka.Writer{Addr: kafka.TCP(s.Addr), Topic: topic, BatchTimeout: time.Millisecond, MaxAttempts: 1, RequiredAcks: kafka.RequireAll}
	defer w.Close()
	if err := w.WriteMessages(t.Context(), kafka.Message{Value: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteMessages(t.Context(), kafka.Message{Value: make([]byte, 30_000)}); err == nil {
		t.Error("the broker takes more than message.max.bytes")
	}
	s.Kill()
	s.Start()
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{s.Addr}, Topic: topic, MaxWait: 50 * time.Millisecond})
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if m, err := r.ReadMessage(ctx); err != nil || string(m.Value) != "kept" {
		t.Errorf("after SIGKILL: %q, %v", m.Value, err)
	}
}
