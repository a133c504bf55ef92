package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/sdk"
)

// intake starts the sagas that come over Kafka: what sdk.StartTx wrote and a
// relay with --starts-over-kafka published. A start that comes again is known
// by its gid.
type intake struct {
	brokers []string
	topic   string
	group   string
}

func (i *intake) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&i.brokers, "intake-kafka", nil,
		"start the sagas that a relay with --starts-over-kafka publishes to these `brokers`, host:port; "+
			"whoever may write the topic may start sagas in any namespace")
	f.StringVar(&i.topic, "intake-topic", sdk.StartTopic, "which are in this `topic`")
	f.StringVar(&i.group, "intake-group", "amends", "as a member of this consumer `group`; one for all coordinators of a store")
}

// check finds mistakes in the flags.
func (i *intake) check() error {
	if len(i.brokers) == 0 {
		return nil
	}
	if err := outbox.CheckTopic(i.topic); err != nil {
		return usagef("--intake-topic: %w", err)
	}
	return nil
}

// run starts sagas until ctx ends. What can never be started is in the topic
// with ".dead" at its end, with the reason.
func (i *intake) run(ctx context.Context, conn grpc.ClientConnInterface, kafka *kafkaLogin, log *slog.Logger) error {
	if len(i.brokers) == 0 {
		return nil
	}
	conf, login, err := kafka.open()
	if err != nil {
		return err
	}
	starter := sdk.NewStarter(sdk.NewClient(conn, &sdk.ClientConfig{Logger: log}))
	f, err := inbox.NewForwarder(i.brokers, i.group, []string{i.topic}, starter, &inbox.ConsumerConfig{
		Concurrency: 64, CreateTopics: true, TLS: conf, SASL: login, Logger: log,
	})
	if err != nil {
		return &usageError{fmt.Errorf("--intake-kafka: %w", err)}
	}
	return f.Run(ctx)
}
