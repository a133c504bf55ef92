package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
)

// webhookSecretEnv signs webhooks: as a flag it would show in the process list.
const webhookSecretEnv = "AMENDS_WEBHOOK_SECRET" //nolint:gosec // its name

// telling is who hears of transactions that need somebody.
type telling struct {
	webhook string
}

func (t *telling) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.webhook, "webhook", "",
		"POST an alert to this `URL` when a transaction is stalled or parked, signed with "+webhookSecretEnv)
}

// notifier returns who tells them; nil when nobody is to be told.
func (t *telling) notifier(st store.Store, name string, log *slog.Logger) (*notify.Notifier, error) {
	if t.webhook == "" {
		return nil, nil
	}
	var cfg notify.WebhookConfig
	if secret := os.Getenv(webhookSecretEnv); secret != "" {
		cfg.Secrets = []string{secret}
	}
	hook, err := notify.NewWebhook(t.webhook, &cfg)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--webhook: %w", err)}
	}
	subs := []notify.Subscriber{{Name: "webhook", Sink: hook, Types: notify.AlertTypes()}}
	return notify.New(st, subs, &notify.Config{Owner: name, Logger: log})
}
