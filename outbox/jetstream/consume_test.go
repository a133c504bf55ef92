package jetstream_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/jetstream"
)

// Some topics go to JetStream, all others to Kafka.
func ExampleNew() {
	relay := func(ctx context.Context, box *outbox.Outbox, db *sql.DB, kafka outbox.Publisher) error {
		nc, err := nats.Connect("tls://nats:4222", append(jetstream.Options(), nats.UserCredentials("shop.creds"))...)
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := jetstream.New(nc, &jetstream.Config{Prefix: "shop.", Stream: &natsjs.StreamConfig{Name: "shop", Replicas: 3}})
		if err != nil {
			return err
		}
		pub := outbox.Route(map[string]outbox.Publisher{"orders.placed": js}, kafka)
		return outbox.NewRelay(box, db, pub, nil).Run(ctx)
	}
	_ = relay
}

// A consumer that handles each message once: it claims the id in the
// transaction of its own work, and acknowledges after the commit.
func ExampleReceived() {
	consume := func(ctx context.Context, stream natsjs.Stream, db *sql.DB, work func(*sql.Tx, outbox.Message) error) error {
		in := inbox.New(outbox.MySQL, "shipping")
		consumer, err := stream.CreateOrUpdateConsumer(ctx, natsjs.ConsumerConfig{
			Durable: "shipping", AckPolicy: natsjs.AckExplicitPolicy,
			MaxAckPending: 1, // one message at a time, so that none overtakes another that failed
		})
		if err != nil {
			return err
		}
		msgs, err := consumer.Messages(natsjs.PullMaxMessages(1))
		if err != nil {
			return err
		}
		defer context.AfterFunc(ctx, msgs.Stop)()
		for {
			msg, err := msgs.Next()
			if errors.Is(err, natsjs.ErrMsgIteratorClosed) {
				return ctx.Err()
			}
			if err != nil {
				return err
			}
			m := jetstream.Received(msg)
			_, err = in.Once(ctx, db, m.ID, func(tx *sql.Tx) error { return work(tx, m) })
			if err != nil {
				log.Printf("message %q, to be handled again: %v", m.ID, err)
				err = msg.NakWithDelay(time.Second)
			} else {
				err = msg.DoubleAck(ctx) // the commit is behind us
			}
			if err != nil {
				log.Printf("message %q comes again: %v", m.ID, err)
			}
		}
	}
	_ = consume
}

// TestHandledOnce publishes everything twice, beyond what the server knows
// again, to consumers that crash between the commit and the acknowledgement.
func TestHandledOnce(t *testing.T) {
	nc, err := nats.Connect(servicestest.NATS(t), jetstream.Options()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	name := servicestest.Name(t)
	stream, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: name, Subjects: []string{name}, Duplicates: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := js.DeleteStream(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	p, err := jetstream.New(nc, &jetstream.Config{Subject: func(m outbox.Message) string { return m.Topic }})
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	publish := func() uint64 {
		for i := range n {
			if errs := p.Publish(t.Context(), []outbox.Message{{ID: fmt.Sprint(i), Topic: name, Key: "k"}}); errs != nil {
				t.Fatal(errs)
			}
		}
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs
	}
	for deadline := time.Now().Add(time.Minute); publish() < 2*n; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server remembers for longer than a minute")
		}
	}
	consumer, err := stream.CreateConsumer(t.Context(), natsjs.ConsumerConfig{
		AckPolicy: natsjs.AckExplicitPolicy, AckWait: 200 * time.Millisecond, MaxAckPending: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	db := openDB(t)
	in := inbox.New(outbox.SQLite, name)
	again := 0
	for {
		msg, err := consumer.Next(natsjs.FetchMaxWait(time.Second))
		if err != nil {
			break // all is handled, or the check below tells
		}
		m := jetstream.Received(msg)
		first, err := in.Once(t.Context(), db, m.ID, func(tx *sql.Tx) error {
			_, err := tx.Exec("INSERT INTO effects (id) VALUES (?)", m.ID)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if !first {
			again++
		}
		if first && int(m.ID[len(m.ID)-1]-'0')%5 == 3 {
			continue // it crashes: the message comes again
		}
		if err := msg.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkEffects(t, db, n)
	if again < n {
		t.Errorf("%d deliveries were duplicates, want %d at least", again, n)
	}
}

// openDB is a database with an inbox, and a table that counts effects.
func openDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), rand.Text())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := outbox.Migrate(ctx, db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE effects (n INTEGER PRIMARY KEY, id TEXT)"); err != nil {
		t.Fatal(err)
	}
	return db
}

// checkEffects wants the ids 0 to n-1, each once and in order.
func checkEffects(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT id FROM effects ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	at := 0
	for ; rows.Next(); at++ {
		var id string
		if err := rows.Scan(&id); err != nil || id != fmt.Sprint(at) {
			t.Errorf("effect %d is of message %s: %v", at, id, err)
		}
	}
	if err := rows.Err(); err != nil || at != n {
		t.Errorf("%d effects, want %d: %v", at, n, err)
	}
}
