package rabbitmq_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"log"
	"path/filepath"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/deploy/servicestest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/rabbitmq"
)

// Some topics go to RabbitMQ, all others to Kafka.
func ExampleNew() {
	relay := func(ctx context.Context, box *outbox.Outbox, db *sql.DB, kafka outbox.Publisher) error {
		rabbit, err := rabbitmq.New("amqps://shop:secret@rabbit:5671/", &rabbitmq.Config{Exchange: "shop", Declare: true})
		if err != nil {
			return err
		}
		defer rabbit.Close()
		pub := outbox.Route(map[string]outbox.Publisher{"orders.placed": rabbit}, kafka)
		return outbox.NewRelay(box, db, pub, nil).Run(ctx)
	}
	_ = relay
}

// A consumer that handles each message once: it claims the id in the
// transaction of its own work, and acknowledges after the commit.
func ExampleReceived() {
	consume := func(ctx context.Context, ch *amqp.Channel, queue string, db *sql.DB, work func(*sql.Tx, outbox.Message) error) error {
		in := inbox.New(outbox.MySQL, queue)
		// One message at a time, so that none overtakes another that failed.
		if err := ch.Qos(1, 0, false); err != nil {
			return err
		}
		deliveries, err := ch.ConsumeWithContext(ctx, queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		for d := range deliveries {
			m := rabbitmq.Received(d)
			_, err := in.Once(ctx, db, m.ID, func(tx *sql.Tx) error { return work(tx, m) })
			if err != nil {
				log.Printf("message %q, to be handled again: %v", m.ID, err)
				err = d.Nack(false, true) // back to its place in the queue
			} else {
				err = d.Ack(false) // the commit is behind us
			}
			if err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	_ = consume
}

// TestHandledOnce publishes everything twice, to consumers that crash between
// the commit and the acknowledgement.
func TestHandledOnce(t *testing.T) {
	url, queue := servicestest.RabbitMQ(t), servicestest.Name(t)
	channel := func(use func(ch *amqp.Channel) error) {
		t.Helper()
		conn, err := amqp.Dial(url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // unacknowledged messages go back
		ch, err := conn.Channel()
		if err == nil {
			err = use(ch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	channel(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, nil)
		return err
	})
	t.Cleanup(func() {
		channel(func(ch *amqp.Channel) error { _, err := ch.QueueDelete(queue, false, false, false); return err })
	})
	p, err := rabbitmq.New(url, &rabbitmq.Config{ // the default exchange, whose routing keys are queues
		Destination: func(m outbox.Message) (string, string) { return "", m.Topic },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const n = 20
	for range 2 {
		for i := range n {
			if errs := p.Publish(t.Context(), []outbox.Message{{ID: fmt.Sprint(i), Topic: queue, Key: "k"}}); errs != nil {
				t.Fatal(errs)
			}
		}
	}
	db := openDB(t)
	in := inbox.New(outbox.SQLite, queue)
	again := 0
	for left := true; left; { // one consumer after the other
		channel(func(ch *amqp.Channel) error {
			for range 7 {
				d, ok, err := ch.Get(queue, false)
				if left = ok; err != nil || !ok {
					return err
				}
				m := rabbitmq.Received(d)
				first, err := in.Once(t.Context(), db, m.ID, func(tx *sql.Tx) error {
					_, err := tx.Exec("INSERT INTO effects (id) VALUES (?)", m.ID)
					return err
				})
				if err != nil {
					return err
				}
				if !first {
					again++
				}
				if first && mod(m.ID) == 3 {
					return nil // it crashes: the message comes again
				}
				if err := d.Ack(false); err != nil {
					return err
				}
			}
			return nil
		})
	}
	checkEffects(t, db, n)
	if again < n {
		t.Errorf("%d deliveries were duplicates, want %d at least", again, n)
	}
}

func mod(id string) int { return int(id[len(id)-1]-'0') % 5 }

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
