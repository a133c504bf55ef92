package main_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// TestRelay writes a message and the start of a saga in one local transaction;
// the relay brings the one to Kafka and the other to the coordinator.
func TestRelay(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "orders.db")
		testRelay(t, openDatabase(t, file), outbox.SQLite, environ(), file, "--sqlite", file)
	})
	t.Run("mysql", func(t *testing.T) {
		dsn := servicestest.MySQL(t)
		testRelay(t, openMySQL(t, dsn), outbox.MySQL, environ("AMENDS_MYSQL_DSN="+dsn), place(t, dsn), "--max-conns", "2")
	})
}

func testRelay(t *testing.T, db *sql.DB, d *outbox.Dialect, env []string, where string, args ...string) {
	_, at := dev(t)
	conn := connect(t, at.coordinator)
	openBank(t, conn)

	box := outbox.New(d, nil)
	err := box.Tx(t.Context(), db, func(tx *sql.Tx) error {
		if err := box.Write(t.Context(), tx, outbox.Message{Topic: "orders", Key: "a", Body: []byte("placed")}); err != nil {
			return err
		}
		_, err := sdk.StartTx(t.Context(), box, tx, pay, payment{ID: "a"}, &sdk.StartConfig{GID: "a"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	createTopic(t, at.kafka, "orders")
	args = append([]string{"relay", "--kafka", at.kafka, "--coordinator", at.coordinator, "--redis", at.redis}, args...)
	p := startIn(t, env, args...)
	p.waitFor(t, `^amends: relaying `+regexp.QuoteMeta(where)+`$`)
	eventually(t, "the outbox is empty", func() bool { return rows(t, db) == 0 })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := p.everything(); !strings.Contains(said, "amends: relayed 2 messages") {
		t.Errorf("want the figures at the end, it said:\n%s", said)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := sdk.NewClient(conn, nil).Run("a").Wait(ctx); err != nil {
		t.Errorf("the relayed saga: %v", err)
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{at.kafka}, Topic: "orders", MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	m, err := reader.ReadMessage(ctx)
	if err != nil || string(m.Key) != "a" || string(m.Value) != "placed" {
		t.Errorf("read %q: %q, %v; want a: placed", m.Key, m.Value, err)
	}
}

// rows counts what is left in the outbox.
func rows(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	for part := range outbox.Partitions {
		var here int
		if err := db.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) FROM amends_outbox_%d", part)).Scan(&here); err != nil {
			t.Fatal(err)
		}
		n += here
	}
	return n
}

func TestRelayOfNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "absent.db")
	if r := amends(t, "relay", "--sqlite", file, "--kafka", "127.0.0.1:9460"); r.code != 1 || !strings.Contains(r.stderr, file) {
		t.Errorf("exit code %d, said %q; want 1 and the file", r.code, r.stderr)
	}
}
