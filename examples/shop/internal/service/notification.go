package service

import (
	"context"
	"database/sql"
	"strings"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

// Nothing here is unique but a number, so that a message handled twice would
// show.
const mailTable = `CREATE TABLE IF NOT EXISTS mail (
  n {serial}, message_id VARCHAR(128) NOT NULL, topic VARCHAR(249) NOT NULL, order_id VARCHAR(64) NOT NULL,
  text VARCHAR(128) NOT NULL)`

const mailSQL = `INSERT INTO mail (message_id, topic, order_id, text) VALUES (?, ?, ?, ?)`

// MailGroup is the consumer group of the notification service.
const MailGroup = "notification"

// runNotification writes one mail for each message.
func runNotification(ctx context.Context, h *host) error {
	cache := redis.NewClient(&redis.Options{Addr: h.cfg.Redis})
	defer cache.Close() // it only saves work
	done, err := outbox.NewRedisKeys(cache, &outbox.RedisConfig{Prefix: h.cfg.Prefix + "shop-notification:", Logger: h.cfg.Logger})
	if err != nil {
		return err
	}
	topics := []string{h.cfg.Prefix + TopicPlaced, h.cfg.Prefix + TopicConfirmed, h.cfg.Prefix + TopicRejected}
	handle := func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		return writeMail(ctx, tx, strings.TrimPrefix(m.Topic, h.cfg.Prefix), m)
	}
	consumer, err := inbox.NewConsumer(h.cfg.Kafka, h.cfg.Prefix+MailGroup, topics, h.db, h.kind.dialect, handle,
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
func writeMail(ctx context.Context, tx *sql.Tx, topic string, m outbox.Message) error {
	text := map[string]string{
		TopicPlaced:    "thank you for your order",
		TopicConfirmed: "your order is on its way",
		TopicRejected:  "we are sorry: your order cannot be fulfilled, and nothing was charged",
	}[topic]
	return exec(ctx, tx, mailSQL, m.ID, m.Topic, m.Key, text)
}
