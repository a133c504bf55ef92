package main

import (
	"context"
	stdsql "database/sql"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	wm "github.com/ThreeDotsLabs/watermill/message"

	"github.com/amends-dev/amends/outbox"
)

// amends is this repository's outbox and relay, with their defaults.
type amends struct {
	brokers []string
	box     *outbox.Outbox
}

func (*amends) name() string { return "amends" }

func (a *amends) prepare(ctx context.Context, db *stdsql.DB) error {
	a.box = outbox.New(outbox.MySQL, nil)
	return outbox.Migrate(ctx, db, outbox.MySQL)
}

func (a *amends) write(ctx context.Context, tx *stdsql.Tx, m message) error {
	return a.box.Write(ctx, tx, outbox.Message{ID: m.id, Topic: m.topic, Key: m.key, Body: []byte(strconv.Itoa(m.n))})
}

func (a *amends) run(ctx context.Context, db *stdsql.DB) error {
	kafka, err := outbox.NewKafka(a.brokers, nil)
	if err != nil {
		return err
	}
	defer kafka.Close()
	return outbox.NewRelay(a.box, db, kafka, nil).Run(ctx)
}

// watermillSQL is Watermill's SQL publisher in the transaction, and its
// forwarder from SQL to Kafka, with their defaults but for the pause between
// two polls, which is a second by default.
type watermillSQL struct{ brokers []string }

const keyOf = "key" // metadata

func (*watermillSQL) name() string { return "watermill" }

func (w *watermillSQL) prepare(_ context.Context, db *stdsql.DB) error {
	sub, err := w.subscriber(db)
	if err != nil {
		return err
	}
	if err := sub.SubscribeInitialize("forwarder_topic"); err != nil {
		return err
	}
	return sub.Close()
}

func (w *watermillSQL) subscriber(db *stdsql.DB) (*wmsql.Subscriber, error) {
	return wmsql.NewSubscriber(wmsql.BeginnerFromStdSQL(db), wmsql.SubscriberConfig{
		SchemaAdapter: wmsql.DefaultMySQLSchema{}, OffsetsAdapter: wmsql.DefaultMySQLOffsetsAdapter{},
		InitializeSchema: true, PollInterval: 10 * time.Millisecond,
	}, watermill.NopLogger{})
}

func (w *watermillSQL) write(_ context.Context, tx *stdsql.Tx, m message) error {
	pub, err := wmsql.NewPublisher(wmsql.TxFromStdSQL(tx), wmsql.PublisherConfig{SchemaAdapter: wmsql.DefaultMySQLSchema{}}, nil)
	if err != nil {
		return err
	}
	msg := wm.NewMessage(watermill.NewUUID(), wm.Payload(strconv.Itoa(m.n)))
	msg.Metadata.Set(keyOf, m.key)
	return forwarder.NewPublisher(pub, forwarder.PublisherConfig{}).Publish(m.topic, msg)
}

func (w *watermillSQL) run(ctx context.Context, db *stdsql.DB) error {
	byKey := wmkafka.NewWithPartitioningMarshaler(func(_ string, m *wm.Message) (string, error) { return m.Metadata.Get(keyOf), nil })
	pub, err := wmkafka.NewPublisher(wmkafka.PublisherConfig{Brokers: w.brokers, Marshaler: byKey}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	sub, err := w.subscriber(db)
	if err != nil {
		return err
	}
	f, err := forwarder.NewForwarder(sub, pub, watermill.NopLogger{}, forwarder.Config{})
	if err != nil {
		return err
	}
	if err := f.Run(ctx); err != nil {
		return err
	}
	return pub.Close()
}
