package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/outbox/outboxdev"
)

// development is what `amends dev` runs beside the coordinator.
type development struct {
	node
	dataDir              string
	kafkaAddr, redisAddr string
}

func newDev() *cobra.Command {
	var d development
	logs := logging{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, for development",
		Long: `Run a coordinator on the embedded store with its web console, and an in-process
Kafka and Redis, until interrupted. The Kafka and Redis are stand-ins for development: never keep data
in them that matters. Without --data-dir everything is forgotten at the end.

What becomes of transactions is published to the topic ` + notify.DefaultTopic + `, through an outbox that the
console shows; --outbox shows those of your services' relays, too.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.check(); err != nil {
				return err
			}
			for flag, addr := range map[string]string{"--kafka": d.kafkaAddr, "--redis": d.redisAddr} {
				if err := d.access.checkListen(flag, addr); err != nil {
					return err
				}
			}
			log, err := logs.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return d.run(cmd.Context(), cmd.ErrOrStderr(), log)
		},
	}
	d.flags(cmd)
	d.outboxes.flags(cmd)
	logs.flags(cmd)
	cmd.Flags().StringVar(&d.dataDir, "data-dir", "", "keep the data in this `directory` (empty: forget it at the end)")
	cmd.Flags().StringVar(&d.http, "http", defaultHTTP, "serve the console and the HTTP/JSON API on this `address` (empty: don't)")
	cmd.Flags().StringVar(&d.kafkaAddr, "kafka", "127.0.0.1:9460", "serve the in-process Kafka on this `address`")
	cmd.Flags().StringVar(&d.redisAddr, "redis", "127.0.0.1:6460", "serve the in-process Redis on this `address`")
	return cmd
}

func (d *development) run(ctx context.Context, w io.Writer, log *slog.Logger) (err error) {
	kept := d.dataDir
	if d.dataDir == "" {
		if d.dataDir, err = os.MkdirTemp("", "amends-dev-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(d.dataDir)) }()
		kept = d.dataDir + " (forgotten at the end; keep it with --data-dir)"
	}
	base := d.dataDir
	local := d.node
	local.at = location{path: filepath.Join(base, "coordinator"), from: "--data-dir"}
	local.lifecycle.brokers, local.lifecycle.topic = []string{d.kafkaAddr}, notify.DefaultTopic
	into := local.lifecycle.into(local.at.dialect(), log)
	st, err := local.at.openStore(ctx, log, into) // first: it tells when another process has the directory
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	kafka, err := outboxdev.StartKafka(&outboxdev.KafkaConfig{Addr: d.kafkaAddr, Dir: filepath.Join(base, "kafka"), Logger: log})
	if err != nil {
		return fmt.Errorf("--kafka %s: %w", d.kafkaAddr, err)
	}
	defer kafka.Close()
	local.lifecycle.brokers = []string{kafka.Addr()}
	if err := local.lifecycle.open(ctx, &local.at, &local.kafka); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.lifecycle.close()) }()
	redis, err := outboxdev.StartRedis(&outboxdev.RedisConfig{Addr: d.redisAddr, Logger: log})
	if err != nil {
		return fmt.Errorf("--redis %s: %w", d.redisAddr, err)
	}
	defer redis.Close()
	return local.serve(ctx, st, log, func(at serving) error {
		_, err := fmt.Fprintf(w, `amends dev: for development only; its Kafka and Redis live in this process
  coordinator  %s
  console      %s
  kafka        %s
  redis        %s
  data         %s
  try it       go run ./examples/transfer -coordinator %s
`, at.addr, cmp.Or(at.console, "none"), kafka.Addr(), redis.Addr(), kept, at.addr)
		return err
	})
}
