// Orders is the outbox and the inbox without sagas: one service writes orders
// and messages in the same transaction, a relay publishes them to Kafka, and
// another service handles each once, even those that arrive twice. Kafka runs
// inside the process, for development:
//
//	go run ./examples/orders
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

const topic = "orders.placed"

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	dir, err := os.MkdirTemp("", "amends-orders-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) // a leftover in the temporary directory does no harm
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout, dir); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// run does the business, and waits for the mails.
func run(ctx context.Context, out io.Writer, dir string) error {
	kafka, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Topics: map[string]int{topic: 2}})
	if err != nil {
		return err
	}
	defer kafka.Close()
	shop, err := open(ctx, filepath.Join(dir, "shop.db"), `CREATE TABLE orders (id TEXT PRIMARY KEY)`)
	if err != nil {
		return err
	}
	defer shop.Close() // what was committed is durable
	mail, err := open(ctx, filepath.Join(dir, "mail.db"), `CREATE TABLE mail (n INTEGER PRIMARY KEY, body TEXT)`)
	if err != nil {
		return err
	}
	defer mail.Close() // likewise

	publisher, err := outbox.NewKafka([]string{kafka.Addr()}, nil)
	if err != nil {
		return err
	}
	defer publisher.Close()
	mailer, err := inbox.NewConsumer([]string{kafka.Addr()}, "mailer", []string{topic}, mail, outbox.SQLite, sendMail, nil)
	if err != nil {
		return err
	}
	box := outbox.New(outbox.SQLite, nil)
	relay := outbox.NewRelay(box, shop, publisher, nil)

	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return relay.Run(ctx) })
	g.Go(func() error { return mailer.Run(ctx) })
	g.Go(func() error {
		defer stop()
		if err := business(ctx, box, shop); err != nil {
			return err
		}
		return report(ctx, out, mail, mailer)
	})
	return g.Wait()
}

// place writes an order and the message about it in one local transaction.
func place(ctx context.Context, box *outbox.Outbox, db *sql.DB, id string) error {
	return box.Tx(ctx, db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO orders VALUES (?)`, id); err != nil {
			return err
		}
		return box.Write(ctx, tx, thanks(id))
	})
}

func thanks(id string) outbox.Message {
	return outbox.Message{ID: id, Topic: topic, Key: id, Body: []byte("thank you for " + id)}
}

// business places ten orders. The eleventh changes its mind before the commit,
// so that its message never was. Then the first message is written again under
// its id, as by a service that crashed before it learned that it had written it.
func business(ctx context.Context, box *outbox.Outbox, db *sql.DB) error {
	for i := range 10 {
		if err := place(ctx, box, db, fmt.Sprintf("order-%02d", i+1)); err != nil {
			return err
		}
	}
	changed := errors.New("the customer changed her mind")
	err := box.Tx(ctx, db, func(tx *sql.Tx) error {
		return errors.Join(box.Write(ctx, tx, thanks("order-11")), changed)
	})
	if !errors.Is(err, changed) {
		return err
	}
	return box.Tx(ctx, db, func(tx *sql.Tx) error { return box.Write(ctx, tx, thanks("order-01")) })
}

// sendMail runs once for each message, in the transaction of its claim.
func sendMail(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO mail (body) VALUES (?)`, string(m.Body))
	return err
}

// report waits until the consumer has seen all eleven messages.
func report(ctx context.Context, out io.Writer, mail *sql.DB, mailer *inbox.Consumer) error {
	for {
		if s := mailer.Stats(); s.Handled+s.Duplicates >= 11 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	var mails int
	if err := mail.QueryRowContext(ctx, `SELECT count(*) FROM mail`).Scan(&mails); err != nil {
		return err
	}
	fmt.Fprintf(out, "10 orders, 1 rolled back, 1 message sent twice: %d mails, %d duplicate suppressed\n",
		mails, mailer.Stats().Duplicates)
	return nil
}

func open(ctx context.Context, path, schema string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(path))
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := outbox.Migrate(ctx, db, outbox.SQLite); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}
