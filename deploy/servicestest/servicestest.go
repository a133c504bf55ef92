// Package servicestest gives tests the real servers: the shared ones that the
// environment names or `make services` started, and servers of a test's own,
// to stop, kill, pause and restart.
//
// A test skips itself, with the reason, when a service is not there; under
// AMENDS_REQUIRE_SERVICES=1 it fails instead.
package servicestest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/services"
)

// timeout bounds every call that prepares a test or cleans up after it.
const timeout = 30 * time.Second

// MySQL answers with a go-sql-driver DSN that names a new, empty database of
// the shared server, which is dropped when the test ends. It keeps the
// parameters of AMENDS_MYSQL_DSN; mysql.ParseDSN is the way to add others.
func MySQL(t testing.TB) string {
	t.Helper()
	return NewDatabase(t, shared(t, services.MySQL))
}

// NewDatabase makes a database on the server of a DSN, and answers with the
// DSN that names it. It is dropped when the test ends.
func NewDatabase(t testing.TB, dsn string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatalf("servicestest: %s: %v", services.MySQL.Env(), err)
	}
	cfg.DBName = ""
	admin := cfg.FormatDSN()
	name := Name(t)
	if err := exec(admin, "CREATE DATABASE "+name+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
		t.Fatalf("servicestest: %v: the user of the DSN must be allowed to create databases", err)
	}
	t.Cleanup(func() {
		if err := exec(admin, "DROP DATABASE IF EXISTS "+name); err != nil {
			t.Errorf("servicestest: %v", err)
		}
	})
	cfg.DBName = name
	return cfg.FormatDSN()
}

// exec runs one statement on a connection of its own. Names come from Name,
// and cannot be bound.
func exec(dsn, statement string) error {
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// Redis answers with the address of the shared server. Keys begin with a Name
// of the test, and nobody flushes it: StartRedis is for that.
func Redis(t testing.TB) string {
	t.Helper()
	return shared(t, services.Redis)
}

// Kafka answers with the brokers of the shared cluster, which makes no topic by
// itself: Topic does.
func Kafka(t testing.TB) []string {
	t.Helper()
	return strings.Split(shared(t, services.Kafka), ",")
}

// RabbitMQ answers with the URL of the shared node. Exchanges and queues are
// called by a Name of the test, which takes them away at its end.
func RabbitMQ(t testing.TB) string {
	t.Helper()
	return shared(t, services.RabbitMQ)
}

// NATS answers with the URL of the shared server, which has JetStream. Streams
// and subjects are called by a Name of the test, which takes them away at its end.
func NATS(t testing.TB) string {
	t.Helper()
	return shared(t, services.NATS)
}

// Topic makes a topic, waits until each partition has a leader, and deletes it
// when the test ends.
func Topic(t testing.TB, brokers []string, partitions int) string {
	t.Helper()
	name := Name(t)
	CreateTopic(t, brokers, kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: 1})
	return name
}

// CreateTopic is Topic with a name and settings of the caller's.
func CreateTopic(t testing.TB, brokers []string, topic kafka.TopicConfig) {
	t.Helper()
	client, hangUp := newClient(brokers)
	defer hangUp()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	res, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err == nil {
		err = res.Errors[topic.Topic]
	}
	if err != nil {
		t.Fatalf("servicestest: creating topic %q: %v", topic.Topic, err)
	}
	t.Cleanup(func() { deleteTopic(t, brokers, topic.Topic) })
	for !hasLeaders(ctx, client, topic) {
		if ctx.Err() != nil {
			t.Fatalf("servicestest: topic %q has no leaders after %v", topic.Topic, timeout)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func hasLeaders(ctx context.Context, client *kafka.Client, topic kafka.TopicConfig) bool {
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic.Topic}})
	if err != nil || len(meta.Topics) != 1 || len(meta.Topics[0].Partitions) != topic.NumPartitions {
		return false
	}
	ask := make([]kafka.OffsetRequest, topic.NumPartitions)
	for i, p := range meta.Topics[0].Partitions {
		if p.Error != nil || p.Leader.Host == "" {
			return false
		}
		ask[i] = kafka.LastOffsetOf(p.ID)
	}
	// A leader is named before it knows that it leads, and refuses until then.
	req := &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic.Topic: ask}}
	ends, err := client.ListOffsets(ctx, req)
	if err != nil {
		return false
	}
	for _, p := range ends.Topics[topic.Topic] {
		if p.Error != nil {
			return false
		}
	}
	return true
}

// deleteTopic connects anew: the test may have restarted the broker.
func deleteTopic(t testing.TB, brokers []string, name string) {
	client, hangUp := newClient(brokers)
	defer hangUp()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}}); err != nil {
		t.Logf("servicestest: topic %q stays: %v", name, err) // its broker may be one that the test killed
	}
}

func newClient(brokers []string) (client *kafka.Client, hangUp func()) {
	tr := &kafka.Transport{DialTimeout: timeout}
	return &kafka.Client{Addr: kafka.TCP(brokers...), Timeout: timeout, Transport: tr}, tr.CloseIdleConnections
}

// Name answers with another name at each call: "amends_test_" and 16 random
// letters and digits, for a database, a topic, a group, a prefix of keys.
func Name(testing.TB) string { return "amends_test_" + strings.ToLower(rand.Text()[:16]) }

// shared finds a service that answers, or ends the test.
func shared(t testing.TB, s services.Service) string {
	t.Helper()
	addr, why := services.Find(s, ".", os.Getenv)
	if addr == "" {
		missing(t, s, why)
	}
	if err := services.Ping(t.Context(), s, addr); err != nil {
		if os.Getenv(s.Env()) != "" {
			t.Fatalf("servicestest: %s is set, but %v", s.Env(), err)
		}
		missing(t, s, err.Error()+": run `make services`")
	}
	return addr
}

func missing(t testing.TB, s services.Service, why string) {
	t.Helper()
	if os.Getenv(services.RequireEnv) == "1" {
		t.Fatalf("no %s, and %s=1: %s", s.Title(), services.RequireEnv, why)
	}
	t.Skipf("no %s: %s", s.Title(), why)
}
