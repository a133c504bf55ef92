package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/outbox"
)

// webhookSecretEnv signs webhooks: as a flag it would show in the process list.
const webhookSecretEnv = "AMENDS_WEBHOOK_SECRET" //nolint:gosec // its name

// telling is who hears of what becomes of transactions.
type telling struct {
	webhook string
	kafka   []string
	topic   string
}

func (t *telling) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.webhook, "webhook", "",
		"POST an alert to this `URL` when a transaction is stalled or parked, signed with "+webhookSecretEnv)
	f.StringSliceVar(&t.kafka, "lifecycle-kafka", nil, "publish what becomes of transactions to these `brokers`, host:port")
	f.StringVar(&t.topic, "lifecycle-topic", notify.DefaultTopic, "in this `topic`")
}

// notifier returns who tells them, and what ends it; nil when nobody is to be
// told.
func (t *telling) notifier(st store.Store, name string, log *slog.Logger) (n *notify.Notifier, done func(), err error) {
	done = func() {}
	var subs []notify.Subscriber
	if t.webhook != "" {
		var cfg notify.WebhookConfig
		if secret := os.Getenv(webhookSecretEnv); secret != "" {
			cfg.Secrets = []string{secret}
		}
		hook, err := notify.NewWebhook(t.webhook, &cfg)
		if err != nil {
			return nil, nil, &usageError{fmt.Errorf("--webhook: %w", err)}
		}
		subs = append(subs, notify.Subscriber{Name: "webhook", Sink: hook, Types: notify.AlertTypes()})
	}
	if len(t.kafka) > 0 {
		k, err := outbox.NewKafka(t.kafka, &outbox.KafkaConfig{CreateTopics: true, Logger: log})
		if err != nil {
			return nil, nil, &usageError{fmt.Errorf("--lifecycle-kafka: %w", err)}
		}
		done = k.Close
		sink := notify.NewPublisher(publishTo(k), t.topic)
		subs = append(subs, notify.Subscriber{Name: "kafka", Sink: sink, Types: notify.AllTypes()})
	}
	if len(subs) == 0 {
		return nil, done, nil
	}
	n, err = notify.New(st, subs, &notify.Config{Owner: name, Logger: log})
	return n, done, err
}

// publishTo brings events to a Kafka publisher of messages.
func publishTo(p outbox.Publisher) notify.PublishFunc {
	return func(ctx context.Context, msgs []notify.Message) []error {
		out := make([]outbox.Message, len(msgs))
		for i, m := range msgs {
			out[i] = outbox.Message{ID: m.ID, Topic: m.Topic, Key: m.Key, Headers: m.Headers, Body: m.Body}
		}
		errs := p.Publish(ctx, out)
		for i, err := range errs {
			if errors.Is(err, outbox.ErrPoison) {
				errs[i] = fmt.Errorf("%w: %w", notify.ErrRejected, err)
			}
		}
		return errs
	}
}
