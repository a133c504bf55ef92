package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

const (
	drainKeys = 1000
	drainPool = 2 * Partitions // connections, as of a program that has a relay
)

// BenchmarkRelayDrain drains a backlog of AMENDS_DRAIN messages (default 50,000) of
// 200 bytes, and does beside it, in the same run, what no relay can do without:
// reading and deleting the same rows, and producing the same records. An operation
// is all three. relay-of-slower is the relay's rate by the lower one of these.
func BenchmarkRelayDrain(b *testing.B) {
	rows := 50_000
	if s := os.Getenv("AMENDS_DRAIN"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < drainKeys {
			b.Fatalf("AMENDS_DRAIN is %q: give a number of %d or more", s, drainKeys)
		}
		rows = n
	}
	b.Run("mysql+kafka", func(b *testing.B) {
		db := openMySQL(b, func(*mysql.Config) {})
		benchmarkDrain(b, &drain{d: MySQL, db: db, broker: servicestest.Kafka(b)[0], rows: rows})
	})
	b.Run("sqlite+kfake", func(b *testing.B) {
		db, err := sql.Open("sqlite", SQLiteDSN(filepath.Join(b.TempDir(), "app.db")))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		if err := Migrate(b.Context(), db, SQLite); err != nil {
			b.Fatal(err)
		}
		k := startBroker(b, outboxdev.KafkaConfig{Dir: b.TempDir()})
		benchmarkDrain(b, &drain{d: SQLite, db: db, broker: k.Addr(), rows: rows})
	})
}

func benchmarkDrain(b *testing.B, d *drain) {
	d.db.SetMaxOpenConns(drainPool)
	d.db.SetMaxIdleConns(drainPool)
	var scan, produced, relayed []float64
	for b.Loop() {
		d.fill(b)
		scan = append(scan, d.rate(b, d.scanAndDelete))
		produced = append(produced, d.produce(b))
		d.fill(b)
		relayed = append(relayed, d.rate(b, d.relay))
	}
	s, p, r := median(scan), median(produced), median(relayed)
	b.ReportMetric(s, "scan+delete/s")
	b.ReportMetric(p, "produce/s")
	b.ReportMetric(r, "relay/s")
	b.ReportMetric(r/min(s, p), "relay-of-slower")
	b.ReportMetric(0, "ns/op")
}

// drain is a database and a broker to drain it to.
type drain struct {
	d      *Dialect
	db     *sql.DB
	broker string
	rows   int
	topic  string
	msgs   []Message
}

// fill writes the backlog, for a topic of its own.
func (d *drain) fill(b *testing.B) {
	b.Helper()
	d.topic = servicestest.Name(b)
	servicestest.CreateTopic(b, []string{d.broker}, kafka.TopicConfig{Topic: d.topic, NumPartitions: 4, ReplicationFactor: 1})
	b.Cleanup(func() { deleteTopic(b, d.broker, d.topic) })
	d.msgs = series(d.topic, 0, d.rows, drainKeys)
	pad := strings.Repeat("f", 160)
	for i := range d.msgs {
		d.msgs[i].Body = append(d.msgs[i].Body, pad...) // about 200 bytes with key and ids
	}
	box := New(d.d, &Config{MaxRows: -1, Logger: slog.New(slog.DiscardHandler)})
	for chunk := range slices.Chunk(d.msgs, 1000) {
		err := box.Tx(b.Context(), d.db, func(tx *sql.Tx) error { return box.Write(b.Context(), tx, chunk...) })
		if err != nil {
			b.Fatal(err)
		}
	}
}

// rate is how many messages a second fn gets through.
func (d *drain) rate(b *testing.B, fn func(ctx context.Context) error) float64 {
	b.Helper()
	began := time.Now()
	if err := fn(b.Context()); err != nil {
		b.Fatal(err)
	}
	return float64(d.rows) / time.Since(began).Seconds()
}

// relay drains with a relay, until it has published all.
func (d *drain) relay(ctx context.Context) error {
	pub, err := NewKafka([]string{d.broker}, &KafkaConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer pub.Close()
	box := New(d.d, &Config{MaxRows: -1, Logger: slog.New(slog.DiscardHandler)})
	r := NewRelay(box, d.db, pub, &RelayConfig{Share: 1, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	for r.Stats().Published < uint64(d.rows) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	return g.Wait()
}

// scanAndDelete reads pages and deletes their ranges, all partitions at once.
func (d *drain) scanAndDelete(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range ordinary {
		g.Go(func() error { return d.scanPartition(ctx, &d.d.part[i]) })
	}
	return g.Wait()
}

func (d *drain) scanPartition(ctx context.Context, part *partitionSQL) error {
	for after := int64(0); ; {
		first, last := int64(0), int64(0)
		err := eachRow(ctx, d.db, part.read, []any{after, DefaultBatch}, func(scan scanner) error {
			var created int64
			var id, topic, key, body, headers, idem sql.RawBytes
			err := scan(&last, &id, &topic, &key, &body, &headers, &idem, &created)
			if first == 0 {
				first = last
			}
			return err
		})
		if err != nil || first == 0 {
			return err
		}
		err = InTx(ctx, d.db, d.d.txOptions(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, part.remove, first, last)
			return err
		})
		if err != nil {
			return err
		}
		after = last
	}
}

// produce sends batches that were encoded before, of as many records as the
// relay's have, to all partitions at once.
func (d *drain) produce(b *testing.B) float64 {
	b.Helper()
	var lanes [4][]Message
	for _, m := range d.msgs {
		m.CreatedAt = time.Now()
		i := partitionOf(&m, []int{0, 1, 2, 3})
		lanes[i] = append(lanes[i], m)
	}
	var batches [4][]*kafkaBatch
	for i, lane := range lanes {
		for chunk := range slices.Chunk(lane, DefaultBatch/ordinary) {
			batch, err := encodeBatch(chunk, "amends", 0)
			if err != nil {
				b.Fatal(err)
			}
			batches[i] = append(batches[i], batch)
		}
	}
	pub := newPublisher(b, KafkaConfig{}, d.broker)
	return d.rate(b, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		for i := range batches {
			g.Go(func() error { return produceAll(ctx, pub, d.topic, i, batches[i]) })
		}
		return g.Wait()
	})
}

func produceAll(ctx context.Context, pub *KafkaPublisher, topic string, index int, batches []*kafkaBatch) error {
	for _, batch := range batches {
		part := rawproduce.RequestPartition{Partition: int32(index)}
		part.RecordSet.Reader = strings.NewReader(string(batch.data))
		req := &rawproduce.Request{Acks: int16(kafka.RequireAll), Timeout: 5000,
			Topics: []rawproduce.RequestTopic{{Topic: topic, Partitions: []rawproduce.RequestPartition{part}}}}
		res, err := pub.transport.RoundTrip(ctx, pub.addr, req)
		if err != nil {
			return err
		}
		answer, ok := res.(*produce.Response)
		if !ok || len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
			return fmt.Errorf("answer %+v", res)
		}
		if err := produceError(answer.Topics[0].Partitions[0]); err != nil {
			return err
		}
	}
	return nil
}
