package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/sdk"
)

// addresses are where `amends dev` listens.
type addresses struct{ coordinator, console, kafka, redis string }

// dev starts `amends dev` on free ports and returns its addresses.
func dev(t *testing.T, args ...string) (p *process, at addresses) {
	t.Helper()
	p = start(t, append([]string{"dev", "--listen", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--redis", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...)...)
	p.waitFor(t, `^amends dev: for development only`)
	at.coordinator = p.waitFor(t, `^  coordinator  (\S+)$`)[1]
	at.console = p.waitFor(t, `^  console      (\S+)$`)[1]
	at.kafka = p.waitFor(t, `^  kafka        (\S+)$`)[1]
	at.redis = p.waitFor(t, `^  redis        (\S+)$`)[1]
	return p, at
}

func TestDevRunsEverything(t *testing.T) {
	p, at := dev(t)
	dir := p.waitFor(t, `^  data         (\S+) \(forgotten at the end`)[1]
	p.waitFor(t, `^  try it       go run ./examples/transfer -coordinator `+regexp.QuoteMeta(at.coordinator)+`$`)

	conn := connect(t, at.coordinator)
	openBank(t, conn)
	run, err := begin(t.Context(), sdk.NewClient(conn, nil), "one", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	client := redis.NewClient(&redis.Options{Addr: at.redis})
	defer client.Close()
	if err := client.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Errorf("redis: %v", err)
	}
	createTopic(t, at.kafka, "t")
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d; it said:\n%s", code, p.everything())
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s was not forgotten: %v", dir, err)
	}
}

func TestDevKeepsItsDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p, at := dev(t, "--data-dir", dir)
	if _, err := begin(t.Context(), sdk.NewClient(connect(t, at.coordinator), nil), "kept", false); err != nil {
		t.Fatal(err)
	}
	if code := p.stop(t); code != 0 {
		t.Fatalf("exit code %d; it said:\n%s", code, p.everything())
	}
	_, at = dev(t, "--data-dir", dir)
	ok(t, "tx", "get", "kept", "--addr", at.coordinator)
}

// createTopic makes a topic of one partition.
func createTopic(t *testing.T, addr, topic string) {
	t.Helper()
	broker, err := kafka.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	if err := broker.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
}
