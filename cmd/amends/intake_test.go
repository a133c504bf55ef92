package main_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

// TestIntake starts sagas over Kafka: each of them in a local transaction, from
// there by a relay to the log, and from there by a coordinator that is killed
// again and again. Some records come twice, and one is no start of a saga. Each
// saga runs, once.
func TestIntake(t *testing.T) {
	t.Parallel() // most of its time it waits
	const starts, kills = 60, 2
	n := seed(t)
	rnd := rand.New(rand.NewPCG(n, n))
	broker, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	file := filepath.Join(t.TempDir(), "orders.db")
	db := openDatabase(t, file)
	addr := freePort(t, rnd)
	conn := connect(t, addr)
	b := openBank(t, conn)

	startIn(t, environ(), "relay", "--sqlite", file, "--kafka", broker.Addr(), "--create-topics", "--starts-over-kafka").
		waitFor(t, `^amends: relaying `)
	serve := []string{"serve", "--listen", addr, "--log-level", "error", "--data-dir", t.TempDir(), "--intake-kafka", broker.Addr()}
	box := outbox.New(outbox.SQLite, nil)
	p := startIn(t, environ(), serve...)
	for i := range starts {
		gid := fmt.Sprintf("in-%d", i)
		err := box.Tx(t.Context(), db, func(tx *sql.Tx) error {
			_, err := sdk.StartTx(t.Context(), box, tx, pay, payment{ID: gid}, &sdk.StartConfig{GID: gid})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if i%(starts/(kills+1)) == starts/(kills+1)-1 && i < starts-1 { // amid what this one has begun
			eventually(t, gid+" is known", func() bool { return known(t.Context(), conn, gid) })
			p.kill()
			p = startIn(t, environ(), serve...)
		}
	}
	eventually(t, "the relay has published the starts", func() bool { return rows(t, db) == 0 })
	writeAgain(t, broker.Addr(), 20)
	p.waitFor(t, `^amends: serving on `)

	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	client := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})
	for i := range starts {
		gid := fmt.Sprintf("in-%d", i)
		eventually(t, gid+" is known", func() bool { return known(ctx, conn, gid) })
		if err := client.Run(gid).Wait(ctx); err != nil {
			t.Fatalf("%s: %v", gid, err)
		}
	}
	eventually(t, "what is no start is a dead letter", func() bool {
		dead, err := lastOffsets(ctx, broker.Addr(), sdk.StartTopic+".dead")
		return err == nil && dead[0]+dead[1]+dead[2]+dead[3] == 1
	})
	checkNothingOpen(t, conn, starts)
	ledger := b.ledger(t)
	for i := range starts {
		if gid := fmt.Sprintf("in-%d", i); ledger[gid] != 2 {
			t.Errorf("%s has %d entries, want 2", gid, ledger[gid])
		}
	}
}

func known(ctx context.Context, conn grpc.ClientConnInterface, gid string) bool {
	_, err := amendsv1.NewAdminServiceClient(conn).GetTransaction(ctx, &amendsv1.GetTransactionRequest{Gid: gid})
	return err == nil
}

// writeAgain copies the first records of each partition of the topic of starts
// to its end, and adds one that is none.
func writeAgain(t *testing.T, broker string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w := &kafka.Writer{Addr: kafka.TCP(broker), Topic: sdk.StartTopic, BatchTimeout: time.Millisecond, Balancer: kafka.Murmur2Balancer{}}
	defer w.Close()
	ends, err := lastOffsets(ctx, broker, sdk.StartTopic)
	if err != nil {
		t.Fatal(err)
	}
	for part, end := range ends {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{broker}, Topic: sdk.StartTopic, Partition: part})
		for ; n > 0 && end > 0; n, end = n-1, end-1 {
			m, err := r.ReadMessage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.WriteMessages(ctx, kafka.Message{Key: m.Key, Value: m.Value, Headers: m.Headers}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := w.WriteMessages(ctx, kafka.Message{Key: []byte("x"), Value: []byte("no start")}); err != nil {
		t.Fatal(err)
	}
}

// lastOffsets are how many records each partition of a topic holds.
func lastOffsets(ctx context.Context, broker, topic string) ([outboxdev.DefaultPartitions]int64, error) {
	var out [outboxdev.DefaultPartitions]int64
	for part := range out {
		conn, err := kafka.DialLeader(ctx, "tcp", broker, topic, part)
		if err != nil {
			return out, err
		}
		out[part], err = conn.ReadLastOffset()
		if err := errors.Join(err, conn.Close()); err != nil {
			return out, err
		}
	}
	return out, nil
}
