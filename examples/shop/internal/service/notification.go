package service

import (
	"context"
	"database/sql"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

// Nothing here is unique but a number, so that a message handled twice would
// show.
const notificationSchema = `
CREATE TABLE IF NOT EXISTS mail (
  n INTEGER PRIMARY KEY, message_id TEXT NOT NULL, topic TEXT NOT NULL, order_id TEXT NOT NULL, text TEXT NOT NULL);`

const mailSQL = `INSERT INTO mail (message_id, topic, order_id, text) VALUES (?, ?, ?, ?)`

// MailGroup is the consumer group of the notification service.
const MailGroup = "notification"

// runNotification writes one mail for each message.
func runNotification(ctx context.Context, h *host) error {
	cache := redis.NewClient(&redis.Options{Addr: h.cfg.Redis})
	defer cache.Close() // it only saves work
	done, err := outbox.NewRedisKeys(cache, &outbox.RedisConfig{Prefix: "shop-notification:", Logger: h.cfg.Logger})
	if err != nil {
		return err
	}
	topics := []string{TopicPlaced, TopicConfirmed, TopicRejected}
	consumer, err := inbox.NewConsumer([]string{h.cfg.Kafka}, MailGroup, topics, h.db, outbox.SQLite, writeMail,
		&inbox.ConsumerConfig{Done: done, CreateTopics: true, Logger: h.cfg.Logger})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return consumer.Run(ctx) })
	g.Go(func() error { return h.ready("") })
	return g.Wait()
}

// writeMail runs once for each message, in the transaction of its claim.
func writeMail(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
	text := map[string]string{
		TopicPlaced:    "thank you for your order",
		TopicConfirmed: "your order is on its way",
		TopicRejected:  "we are sorry: your order cannot be fulfilled, and nothing was charged",
	}[m.Topic]
	return exec(ctx, tx, mailSQL, m.ID, m.Topic, m.Key, text)
}
