package debezium_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/debezium"
	"github.com/amends-dev/amends/outbox/inbox"
)

const insertEvent = `INSERT INTO outboxevent (id, aggregatetype, aggregateid, type, payload) VALUES (?, ?, ?, ?, ?)`

// writeBoth is how an event is written while a service moves.
func writeBoth(ctx context.Context, tx *sql.Tx, box *outbox.Outbox, router *debezium.Router, e debezium.Event) error {
	// Debezium's, until the service has moved:
	if _, err := tx.ExecContext(ctx, insertEvent, e.ID, e.AggregateType, e.AggregateID, e.Type, e.Payload); err != nil {
		return err
	}
	// Amends', of the same id:
	m, err := router.Message(e)
	if err != nil {
		return err
	}
	return box.Write(ctx, tx, m)
}

func consumeBoth(ctx context.Context, brokers []string, db *sql.DB, router *debezium.Router) error {
	handler := router.Handler(outbox.MySQL, "mailer", func(ctx context.Context, tx *sql.Tx, e debezium.Event) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO mails (order_id, kind) VALUES (?, ?)", e.AggregateID, e.Type)
		return err
	})
	consumer, err := inbox.NewConsumer(brokers, "mailer", []string{"outbox.event.order"}, db, outbox.MySQL, handler, nil)
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

func Example() {
	_, _ = writeBoth, consumeBoth // with a database and a broker
	router, err := debezium.New(&debezium.Config{
		Topic:      "outbox.event.${routedByValue}", // route.topic.replacement
		TypeHeader: "eventType",                     // table.fields.additional.placement=type:header:eventType
		Key:        debezium.Plain,                  // key.converter=…StringConverter
		Value:      debezium.Plain,                  // table.expand.json.payload=true, schemas.enable=false
	})
	if err != nil {
		log.Fatal(err)
	}
	m, err := router.Message(debezium.Event{
		ID: "4d47e190", AggregateType: "order", AggregateID: "17", Type: "OrderCreated", Payload: []byte(`{"id":17}`),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Topic, m.Key, m.Headers["id"], m.Headers["eventType"], string(m.Body))
	// Output: outbox.event.order 17 4d47e190 OrderCreated {"id":17}
}
