package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/outbox"
)

// lifecycleConns are the relay's connections to a database server.
const lifecycleConns = 4

// lifecycle tells Kafka what becomes of transactions: through an outbox in the
// coordinator's own database, into which the commits write.
type lifecycle struct {
	brokers []string
	topic   string
	box     *outbox.Outbox
	relay   *outbox.Relay // nil: nobody is to be told
	db      *sql.DB
	kafka   *outbox.KafkaPublisher
	log     *slog.Logger
}

func (l *lifecycle) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&l.brokers, "lifecycle-kafka", nil, "publish what becomes of transactions to these `brokers`, host:port")
	f.StringVar(&l.topic, "lifecycle-topic", notify.DefaultTopic, "in this `topic`")
}

// check finds mistakes in the flags: what no outbox takes would never be told.
func (l *lifecycle) check() error {
	if len(l.brokers) == 0 {
		return nil
	}
	if err := outbox.CheckTopic(l.topic); err != nil {
		return usagef("--lifecycle-topic: %w", err)
	}
	return nil
}

// tell makes a coordinator write events, and wake the relay after the commit.
func (l *lifecycle) tell(cfg *coordinator.Config) {
	if len(l.brokers) == 0 {
		return
	}
	cfg.Announce = notify.Lifecycle{Topic: l.topic}.Announce
	cfg.Observers = append(cfg.Observers, func(store.Record, []store.Event) { l.box.Wake() })
}

// toOutbox writes messages in the transaction of a commit.
type toOutbox func(ctx context.Context, tx *sql.Tx, msgs []store.Message) error

// into is for sqlstore.Config; nil when nobody is to be told.
func (l *lifecycle) into(d *outbox.Dialect, log *slog.Logger) toOutbox {
	if len(l.brokers) == 0 {
		return nil
	}
	// A full outbox, of a Kafka that is away for long, must not stop transactions.
	l.box, l.log = outbox.New(d, &outbox.Config{Policy: outbox.Shed, Logger: log}), log
	return l.write
}

// write writes messages in the transaction of a commit. One that no outbox takes
// is left out: the commit must not fail for it, now and for ever.
func (l *lifecycle) write(ctx context.Context, tx *sql.Tx, msgs []store.Message) error {
	out := make([]outbox.Message, len(msgs))
	for i, m := range msgs {
		out[i] = outbox.Message{ID: m.ID, Topic: m.Topic, Key: m.Key, Headers: m.Headers, Body: m.Body, Sheddable: true}
	}
	if err := l.box.Write(ctx, tx, out...); !errors.Is(err, outbox.ErrMessage) {
		return err
	}
	for _, m := range out {
		switch err := l.box.Write(ctx, tx, m); {
		case errors.Is(err, outbox.ErrMessage):
			l.log.Error("amends: a lifecycle event cannot be told", "gid", m.Key, "id", m.ID, "err", err)
		case err != nil:
			return err
		}
	}
	return nil
}

// open makes the outbox's tables.
func (l *lifecycle) open(ctx context.Context, at *location, to *kafkaLogin) error {
	if len(l.brokers) == 0 {
		return nil
	}
	conf, login, err := to.open()
	if err != nil {
		return err
	}
	db, d, err := at.openOwnOutbox()
	if err != nil {
		return err
	}
	if err := at.migrateOutbox(ctx, db, d); err != nil {
		return errors.Join(err, db.Close())
	}
	kafka, err := outbox.NewKafka(l.brokers, &outbox.KafkaConfig{CreateTopics: true, TLS: conf, SASL: login, Logger: l.log})
	if err != nil {
		return errors.Join(&usageError{fmt.Errorf("--lifecycle-kafka: %w", err)}, db.Close())
	}
	l.db, l.kafka = db, kafka
	l.relay = outbox.NewRelay(l.box, db, kafka, &outbox.RelayConfig{Logger: l.log})
	return nil
}

func (l *lifecycle) close() error {
	if l.relay == nil {
		return nil
	}
	l.kafka.Close()
	return l.db.Close()
}

// run relays what was written until ctx ends.
func (l *lifecycle) run(ctx context.Context) error {
	if l.relay == nil {
		return nil
	}
	return l.relay.Run(ctx)
}

// openOwnOutbox opens the database of a coordinator's store once more, for its
// outbox.
func (l *location) openOwnOutbox() (*sql.DB, *outbox.Dialect, error) {
	if l.conf == nil {
		db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(l.path, "amends.db")))
		return db, outbox.SQLite, err
	}
	db, err := openMySQL(l.conf, lifecycleConns)
	if err != nil {
		return nil, nil, &usageError{fmt.Errorf("%s: %w", l.from, err)}
	}
	return db, outbox.MySQL, nil
}

// dialect is how the place's database is spoken to.
func (l *location) dialect() *outbox.Dialect {
	if l.conf == nil {
		return outbox.SQLite
	}
	return outbox.MySQL
}
