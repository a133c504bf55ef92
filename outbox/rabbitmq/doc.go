// Package rabbitmq publishes an outbox to RabbitMQ (AMQP 0-9-1).
//
// Messages are persistent, and acknowledged when RabbitMQ confirms them: when
// every queue that they were routed to has them, a durable one on its disk. One
// that is routed to no queue is an error, and is tried again. Of each key at
// most one message is unconfirmed, so that a failure, whatever its kind, holds
// back what comes after it.
//
// RabbitMQ knows no producer again: a message whose confirmation was lost is
// published a second time, with the same id, and for its consumer's inbox to
// drop.
//
//	p, err := rabbitmq.New("amqps://user:secret@rabbit:5671/", &rabbitmq.Config{Exchange: "shop"})
//	relay := outbox.NewRelay(box, db, outbox.Route(map[string]outbox.Publisher{"orders.placed": p}, kafka), nil)
package rabbitmq
