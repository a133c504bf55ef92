package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	_ "modernc.org/sqlite" // the driver of --sqlite

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// relaying is a relay of its own, beside the service that writes the outbox.
type relaying struct {
	sqlite, coordinator, redis string
	kafka                      []string
	createTopics               bool
}

func newRelay() *cobra.Command {
	var r relaying
	var logs logging
	cmd := &cobra.Command{
		Use:   "relay",
		Short: "Publish the outbox of a SQLite database",
		Long: `Publish the outbox of a SQLite database to Kafka until interrupted. Several relays
of one database share its work; after a crash another takes over.

Sagas that were started with sdk.StartTx go to the coordinator. Without
--coordinator they stay in the outbox, and so do messages without --kafka.`,
		Example: "  amends relay --sqlite orders.db --kafka 127.0.0.1:9460 --coordinator 127.0.0.1:7460",
		Args:    noArgs,
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
	f.StringVar(&r.sqlite, "sqlite", "", "file of the database")
	f.StringSliceVar(&r.kafka, "kafka", nil, "brokers, host:port")
	f.StringVar(&r.coordinator, "coordinator", "", "address of the coordinator, for sdk.StartTx")
	f.StringVar(&r.redis, "redis", "", "address of a Redis that saves duplicates (empty: none)")
	f.BoolVar(&r.createTopics, "create-topics", false, "make missing topics with the broker's defaults")
	logs.flags(cmd)
	return cmd
}

func (r *relaying) check() error {
	if r.sqlite == "" {
		return usagef("--sqlite is empty: name the file of the database")
	}
	if len(r.kafka) == 0 && r.coordinator == "" {
		return usagef("neither --kafka nor --coordinator is given: there is nowhere to publish to")
	}
	return nil
}

func (r *relaying) run(ctx context.Context, w io.Writer, log *slog.Logger) (err error) {
	if _, err := os.Stat(r.sqlite); err != nil {
		return fmt.Errorf("--sqlite: %w", err) // opening would make an empty one
	}
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(r.sqlite))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := outbox.Migrate(ctx, db, outbox.SQLite); err != nil {
		return fmt.Errorf("--sqlite %s: %w", r.sqlite, err)
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
	relay := outbox.NewRelay(outbox.New(outbox.SQLite, &outbox.Config{Logger: log}), db, pub, cfg)
	fmt.Fprintf(w, "amends: relaying %s\n", r.sqlite)
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
