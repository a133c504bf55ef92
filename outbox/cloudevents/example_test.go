package cloudevents_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/cloudevents"
	"github.com/amends-dev/amends/outbox/inbox"
)

var (
	db  *sql.DB
	box *outbox.Outbox
)

func placeOrder(ctx context.Context, order string, placed time.Time) error {
	return box.Tx(ctx, db, func(tx *sql.Tx) error {
		m, err := cloudevents.Binary(cloudevents.Event{
			Source: "/shop/orders", Type: "com.example.order.placed", Subject: order, Time: placed,
			DataContentType: "application/json", Data: []byte(`{"cents":1250}`),
		}.WithTrace(ctx), "orders")
		if err != nil {
			return err
		}
		return box.Write(ctx, tx, m)
	})
}

func consumeOrders(ctx context.Context, brokers []string) error {
	handler := cloudevents.Handler(outbox.MySQL, "mailer", func(ctx context.Context, tx *sql.Tx, e cloudevents.Event) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO mails (subject, body) VALUES (?, ?)", e.Subject, e.Data)
		return err
	})
	consumer, err := inbox.NewConsumer(brokers, "mailer", []string{"orders"}, db, outbox.MySQL, handler, nil)
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

func Example() {
	_, _ = placeOrder, consumeOrders // with a database and a broker
	m, err := cloudevents.Binary(cloudevents.Event{
		ID: "1", Source: "/shop/orders", Type: "com.example.order.placed", Subject: "17", DataContentType: "application/json",
		Data: []byte(`{"cents":1250}`),
	}, "orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Topic, m.Key, m.Headers["ce_type"], m.Headers["content-type"], string(m.Body))
	// Output: orders 17 com.example.order.placed application/json {"cents":1250}
}
