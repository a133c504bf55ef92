package debezium_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/debezium"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

const (
	makeHandled = `CREATE TABLE handled (seq INTEGER PRIMARY KEY, aggregate TEXT NOT NULL, payload TEXT NOT NULL)`
	addHandled  = `INSERT INTO handled (aggregate, payload) VALUES (?, ?)`
	allHandled  = `SELECT aggregate, payload FROM handled ORDER BY seq`
)

// move is a service under way from Debezium to Amends.
type move struct {
	t      *testing.T
	db     *sql.DB
	box    *outbox.Outbox
	pub    *outbox.KafkaPublisher
	router *debezium.Router
	group  string
	writer *kafka.Writer
	broker string
}

func newMove(t *testing.T, broker string) *move {
	t.Helper()
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "a.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), makeHandled); err != nil {
		t.Fatal(err)
	}
	topic := servicestest.Topic(t, []string{broker}, 2)
	router, err := debezium.New(&debezium.Config{Topic: topic[:len(topic)-4] + "${routedByValue}"})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := outbox.NewKafka([]string{broker}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	m := &move{t: t, db: db, pub: pub, router: router, group: servicestest.Name(t), broker: broker,
		box:    outbox.New(outbox.SQLite, &outbox.Config{Logger: slog.New(slog.DiscardHandler)}),
		writer: &kafka.Writer{Addr: kafka.TCP(broker), Topic: topic, Balancer: &kafka.Murmur2Balancer{}, BatchSize: 1, RequiredAcks: kafka.RequireAll}}
	t.Cleanup(func() { m.writer.Close() })
	return m
}

// event is the nth of an aggregate.
func (m *move) event(aggregate string, n int) debezium.Event {
	return debezium.Event{
		ID: fmt.Sprintf("%s-%d", aggregate, n), AggregateType: m.writer.Topic[len(m.writer.Topic)-4:], AggregateID: aggregate,
		Type: "counted", Payload: fmt.Appendf(nil, "%d", n),
	}
}

// debezium writes an event as the router does: without any header of Amends.
func (m *move) debezium(ctx context.Context, e debezium.Event) error {
	return m.writer.WriteMessages(ctx, kafka.Message{Key: []byte(e.AggregateID), Value: e.Payload,
		Headers: []kafka.Header{{Key: "id", Value: []byte(e.ID)}, {Key: "eventType", Value: []byte(e.Type)}}})
}

// amends writes an event to the outbox.
func (m *move) amends(e debezium.Event) {
	m.t.Helper()
	err := m.box.Tx(m.t.Context(), m.db, func(tx *sql.Tx) error {
		msg, err := m.router.Message(e)
		if err != nil {
			return err
		}
		return m.box.Write(m.t.Context(), tx, msg)
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// TestMove follows docs/from-debezium.md: first only Debezium writes; then each
// event is written to both tables, while no relay runs; then the relay starts, and
// Debezium, which lags behind, repeats what Amends publishes or the other way
// round; then only Amends writes. Each event is handled once, in order.
func TestMove(t *testing.T) {
	k, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	m := newMove(t, k.Addr())
	aggregates := []string{"a", "b", "c"}
	const only, both, after = 20, 40, 20 // events of an aggregate in each phase
	var lagging []debezium.Event         // what Debezium has yet to publish
	for n := range only + both {
		for _, a := range aggregates {
			e := m.event(a, n)
			if n >= only {
				m.amends(e)
			}
			if n < only+both/2 {
				if err := m.debezium(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			} else {
				lagging = append(lagging, e)
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	relay := outbox.NewRelay(m.box, m.db, m.pub, &outbox.RelayConfig{Logger: slog.New(slog.DiscardHandler)})
	g.Go(func() error { return relay.Run(ctx) })
	consumer := m.consumer()
	g.Go(func() error { return consumer.Run(ctx) })
	g.Go(func() error {
		for _, e := range lagging {
			if err := m.debezium(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
	for n := only + both; n < only+both+after; n++ {
		for _, a := range aggregates {
			m.amends(m.event(a, n))
		}
	}
	records := uint64(len(aggregates) * (only + 2*both + after))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		s := consumer.Stats()
		if s.Handled+s.Duplicates >= records {
			break
		}
		if s.Dead > 0 || time.Now().After(deadline) {
			t.Fatalf("%d records, %+v", records, s)
		}
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	m.check(aggregates, only+both+after)
}

func (m *move) consumer() *inbox.Consumer {
	m.t.Helper()
	handler := m.router.Handler(outbox.SQLite, m.group, func(ctx context.Context, tx *sql.Tx, e debezium.Event) error {
		_, err := tx.ExecContext(ctx, addHandled, e.AggregateID, string(e.Payload))
		return err
	})
	c, err := inbox.NewConsumer([]string{m.broker}, m.group, []string{m.writer.Topic}, m.db, outbox.SQLite, handler,
		&inbox.ConsumerConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// check wants all events of each aggregate, once and in order.
func (m *move) check(aggregates []string, each int) {
	m.t.Helper()
	rows, err := m.db.QueryContext(m.t.Context(), allHandled)
	if err != nil {
		m.t.Fatal(err)
	}
	defer rows.Close()
	got := map[string][]string{}
	for rows.Next() {
		var a, payload string
		if err := rows.Scan(&a, &payload); err != nil {
			m.t.Fatal(err)
		}
		got[a] = append(got[a], payload)
	}
	if err := rows.Err(); err != nil {
		m.t.Fatal(err)
	}
	var want []string
	for n := range each {
		want = append(want, fmt.Sprint(n))
	}
	for _, a := range aggregates {
		if !slices.Equal(got[a], want) {
			m.t.Errorf("aggregate %s was handled as %v", a, got[a])
		}
	}
}
