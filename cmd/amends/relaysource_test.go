package main_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
	"github.com/amends-dev/amends/outbox/outboxdev"
	"github.com/amends-dev/amends/sdk"
)

// startBroker runs a Kafka with the topic orders until the test ends.
func startBroker(t *testing.T) (addr string) {
	t.Helper()
	broker, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Topics: map[string]int{"orders": 1}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return broker.Addr()
}

// wantOrders reads the topic orders from its beginning.
func wantOrders(t *testing.T, broker string, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{broker}, Topic: "orders", MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	for _, body := range want {
		if m, err := reader.ReadMessage(ctx); err != nil || string(m.Key) != "a" || string(m.Value) != body {
			t.Fatalf("read %q: %q, %v; want a: %s", m.Key, m.Value, err, body)
		}
	}
}

// TestRelayCourier brings two-phase messages to Kafka: one that nobody decided,
// until an operator answers for its check, and one of the same key that waits
// behind it.
func TestRelayCourier(t *testing.T) {
	t.Parallel() // most of its time it waits
	broker := startBroker(t)
	_, addr := serve(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "courier.db")
	db := openDatabase(t, file)
	p := start(t, "relay", "--sqlite", file, "--kafka", broker, "--coordinator", addr, "--courier")
	p.waitFor(t, `^amends: relaying `)

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	client := sdk.NewClient(connect(t, addr), &sdk.ClientConfig{Logger: quiet()})
	send := func(gid string, timeout time.Duration, err error) error {
		m := outbox.Message{Topic: "orders", Key: "a", Body: []byte(gid)}
		work := func(context.Context, string) error { return err }
		return sdk.SendMessage(ctx, client, m, "shop.placed", work, &sdk.MessageConfig{GID: gid, Timeout: timeout})
	}
	lost := errors.New("the answer of the commit was lost")
	if err := send("one", 10*time.Second, lost); !errors.Is(err, sdk.ErrUnknown) || !errors.Is(err, lost) {
		t.Fatalf("got %v, want unknown", err)
	}
	if err := send("two", time.Minute, nil); err != nil {
		t.Fatal(err)
	}
	if n := rows(t, db); n != 0 {
		t.Errorf("%d messages are in the outbox before the first one is decided", n)
	}
	eventually(t, "the check of one is asked, and answered by hand", func() bool {
		return amends(t, "tx", "complete", "one", "--reason", "the order is there", "--addr", addr).code == 0
	})
	wantOrders(t, broker, "one", "two")
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestRelayBinlog reads the log beside the tables, and then instead of them.
func TestRelayBinlog(t *testing.T) {
	server := servicestest.StartMySQL(t, "--log-bin=bin", "--binlog-format=ROW", "--server-id=1",
		"--sync-binlog=1", "--plugin-load-add=ha_blackhole")
	dsn := servicestest.NewDatabase(t, server.Addr)
	db, broker, env := openMySQL(t, dsn), startBroker(t), environ("AMENDS_MYSQL_DSN="+dsn)
	write := func(cfg *outbox.Config, body string) {
		t.Helper()
		box := outbox.New(outbox.MySQL, cfg)
		m := outbox.Message{Topic: "orders", Key: "a", Body: []byte(body)}
		if err := box.Tx(t.Context(), db, func(tx *sql.Tx) error { return box.Write(t.Context(), tx, m) }); err != nil {
			t.Fatal(err)
		}
	}
	relay := func(mode string) *process {
		t.Helper()
		p := startIn(t, env, "relay", "--kafka", broker, "--binlog", mode)
		p.waitFor(t, `outbox: binlog: reading`)
		return p
	}
	p := relay("table")
	write(nil, "one")
	wantOrders(t, broker, "one")
	eventually(t, "the outbox is empty", func() bool { return rows(t, db) == 0 })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := amendsIn(t, env, "relay", "--kafka", broker, "--binlog", "log"); r.code != 1 || !strings.Contains(r.stderr, "keeps its rows") {
		t.Errorf("exit code %d, said %q; want 1, as the tables keep their rows", r.code, r.stderr)
	}

	conf, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	err = binlog.Convert(t.Context(), db, binlog.Config{Addr: conf.Addr, User: conf.User, Password: conf.Passwd,
		Database: conf.DBName, Mode: binlog.ModeLog, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	p = relay("log")
	write(&outbox.Config{MaxRows: -1}, "two")
	wantOrders(t, broker, "one", "two")
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
