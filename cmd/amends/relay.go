package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// relaying is a relay of its own, beside the service that writes the outbox.
type relaying struct {
	at                 location
	coordinator, redis string
	kafka              []string
	createTopics       bool
}

func newRelay() *cobra.Command {
	var r relaying
	var logs logging
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Publish the outbox of a service's database",
		Long: `Publish the outbox in a service's database, SQLite or MySQL, to Kafka until
interrupted. Several relays of one database share its work; after a crash the
others take over. The outbox's tables are made and upgraded first.

Sagas that were started with sdk.StartTx go to the coordinator. Without
--coordinator they stay in the outbox, and so do messages without --kafka.
` + aboutDSN,
		Example: `  amends relay --sqlite orders.db --kafka 127.0.0.1:9460 --coordinator 127.0.0.1:7460
  ` + mysqlEnv + `='orders:…@tcp(db:3306)/orders' amends relay --kafka kafka-1:9092,kafka-2:9092`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.check(); err != nil {
				return err
			}
			log, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return r.run(cmd.Context(), cmd.ErrOrStderr(), log)
		},
	}
	f := cmd.Flags()
	r.at.flags(cmd, "sqlite", "SQLite database, as a `file`")
	r.at.connsFlag(strconv.Itoa(relayConns))
	f.StringSliceVar(&r.kafka, "kafka", nil, "`brokers` to publish to, host:port, separated by commas")
	f.StringVar(&r.coordinator, "coordinator", "", "coordinator's `address`, for sdk.StartTx")
	f.StringVar(&r.redis, "redis", "", "Redis's `address`; it makes duplicates after a crash rarer")
	f.BoolVar(&r.createTopics, "create-topics", false, "make missing topics with the broker's defaults")
	logs.flags(cmd)
	return cmd
}

func (r *relaying) check() error {
	if len(r.kafka) == 0 && r.coordinator == "" {
		return usagef("neither --kafka nor --coordinator is given: there is nowhere to publish to")
	}
	return r.at.resolve()
}

func (r *relaying) run(ctx context.Context, w io.Writer, log *slog.Logger) (err error) {
	db, dialect, err := r.at.openOutbox()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := r.at.migrateOutbox(ctx, db, dialect); err != nil {
		return err
	}
	pub, done, err := r.publisher(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	cfg := &outbox.RelayConfig{Logger: log}
	if r.redis != "" {
		client := redis.NewClient(&redis.Options{Addr: r.redis})
		defer func() { err = errors.Join(err, client.Close()) }()
		if cfg.Keys, err = outbox.NewRedisKeys(client, nil); err != nil {
			return fmt.Errorf("--redis %s: %w", r.redis, err)
		}
	}
	relay := outbox.NewRelay(outbox.New(dialect, &outbox.Config{Logger: log}), db, pub, cfg)
	fmt.Fprintf(w, "amends: relaying %s\n", &r.at)
	err = relay.Run(ctx)
	s := relay.Stats()
	fmt.Fprintf(w, "amends: relayed %d messages, dropped %d duplicates, %d dead letters, %d failed attempts\n",
		s.Published, s.Duplicates+s.Skipped, s.Dead, s.Failures)
	return err
}

// publisher sends starts of sagas to the coordinator and all else to Kafka.
func (r *relaying) publisher(log *slog.Logger) (outbox.Publisher, func() error, error) {
	starts, other := nowhere("--coordinator"), nowhere("--kafka")
	var closers []func() error
	done := func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	if r.coordinator != "" {
		conn, err := dial(r.coordinator)
		if err != nil {
			return nil, nil, err
		}
		closers = append(closers, conn.Close)
		starts = sdk.NewStarter(sdk.NewClient(conn, &sdk.ClientConfig{Logger: log}))
	}
	if len(r.kafka) > 0 {
		k, err := outbox.NewKafka(r.kafka, &outbox.KafkaConfig{CreateTopics: r.createTopics, Logger: log})
		if err != nil {
			return nil, nil, errors.Join(&usageError{fmt.Errorf("--kafka: %w", err)}, done())
		}
		closers = append(closers, func() error { k.Close(); return nil })
		other = k
	}
	return outbox.Route(map[string]outbox.Publisher{sdk.StartTopic: starts}, other), done, nil
}

// nowhere keeps messages in the outbox until the relay runs with the flag.
func nowhere(flag string) outbox.Publisher {
	return outbox.PublishFunc(func(_ context.Context, m outbox.Message) error {
		return fmt.Errorf("topic %q: the relay runs without %s", m.Topic, flag)
	})
}
