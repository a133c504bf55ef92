package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// relaying is a relay of its own, beside the service that writes the outbox.
type relaying struct {
	at           location
	to           login // the coordinator; without an address there is none
	api          answering
	redis        string
	redisPrefix  string
	lease        time.Duration
	poison       string
	share        float64
	kafka        []string
	kafkaLogin   kafkaLogin
	createTopics bool
	// startsOverKafka sends starts of sagas to Kafka, for 'amends serve --intake-kafka'.
	startsOverKafka bool
	courier         bool
	binlog          string

	conn    *grpc.ClientConn // to the coordinator, if there is one
	relay   *outbox.Relay    // after open
	carries *sdk.Courier     // after open; nil without --courier
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

With --listen it serves the API by which 'amends outbox' and the console of
'amends serve --outbox' show what waits, and act on it; with --http the same as
HTTP/JSON, and /metrics. Beyond loopback that needs TLS and an --auth-file.

Sagas that were started with sdk.StartTx go to the coordinator. Without
--coordinator they stay in the outbox, and so do messages without --kafka.

With --courier it takes the messages of sdk.SendMessage from the coordinator into
the outbox, in this database, once they are decided. With --binlog table it reads
what is new from the server's binary log instead of polling; with --binlog log the
tables keep nothing (ENGINE=BLACKHOLE) and the log is all there is.
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
	r.flags(cmd)
	logs.flags(cmd)
	return cmd
}

func (r *relaying) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	r.at.flags(cmd, "sqlite", "SQLite database, as a `file`")
	r.at.connsFlag(strconv.Itoa(relayConns))
	f.StringSliceVar(&r.kafka, "kafka", nil, "`brokers` to publish to, host:port, separated by commas")
	r.kafkaLogin.flags(cmd)
	f.StringVar(&r.to.addr, "coordinator", "", "coordinator's `address`, for sdk.StartTx and --courier")
	r.to.flags(cmd)
	f.StringVar(&r.redis, "redis", "", "Redis's `address`; it makes duplicates after a crash rarer")
	f.StringVar(&r.redisPrefix, "redis-prefix", "",
		"what the names of keys in Redis begin with (default: amends: and a digest of the database's identity and place)")
	f.StringVar(&r.poison, "poison", "dead-letter",
		"what becomes of messages that can never be published: dead-letter; or, with their key until somebody acts, "+
			"block (where they are) or park (out of the way)")
	f.DurationVar(&r.lease, "lease", outbox.DefaultLease, "how long a crash of this relay delays its messages")
	f.Float64Var(&r.share, "share", outbox.DefaultShare,
		"`part` of the time, up to 1, to keep the database busy with a backlog; more is faster, and slows others down more")
	f.BoolVar(&r.startsOverKafka, "starts-over-kafka", false,
		"publish what sdk.StartTx starts to --kafka, for 'amends serve --intake-kafka', and not to --coordinator")
	f.BoolVar(&r.createTopics, "create-topics", false, "make missing topics with the broker's defaults")
	f.BoolVar(&r.courier, "courier", false, "take the messages of sdk.SendMessage from --coordinator, too")
	f.StringVar(&r.binlog, "binlog", "", "of --mysql: read its binary log, and where the messages are: table or log (default: poll)")
	r.api.flags(cmd)
}

// poisons are what --poison can be.
var poisons = map[string]outbox.PoisonPolicy{"dead-letter": outbox.DeadLetter, "block": outbox.BlockKey, "park": outbox.ParkKey}

func (r *relaying) check() error {
	_, known := poisons[r.poison]
	switch {
	case r.lease < minLease:
		return usagef("--lease is %v: give %v or more", r.lease, minLease)
	case !(r.share > 0 && r.share <= 1): // so is NaN refused
		return usagef("--share is %v: give a part of the time, above 0 and up to 1", r.share)
	case !known:
		return usagef("--poison is %q: give dead-letter, block or park", r.poison)
	case r.redisPrefix != "" && r.redis == "":
		return usagef("--redis-prefix is for --redis: give that too")
	case r.startsOverKafka && len(r.kafka) == 0:
		return usagef("--starts-over-kafka needs brokers: give --kafka too")
	case r.courier && r.to.addr == "":
		return usagef("--courier takes messages from a coordinator: give --coordinator too")
	}
	if err := r.api.check(); err != nil {
		return err
	}
	if len(r.kafka) == 0 && r.to.addr == "" {
		return usagef("neither --kafka nor --coordinator is given: there is nowhere to publish to")
	}
	return errors.Join(r.kafkaLogin.check(r.kafka), r.at.resolve(), r.checkSource())
}

func (r *relaying) run(ctx context.Context, w io.Writer, log *slog.Logger) (err error) {
	done, err := r.open(ctx, log)
	defer func() { err = errors.Join(err, done()) }()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "amends: relaying %s\n", &r.at)
	r.api.say(w)
	err = r.drive(ctx)
	s := r.relay.Stats()
	fmt.Fprintf(w, "amends: relayed %d messages, dropped %d duplicates, %d dead letters, %d failed attempts\n",
		s.Published, s.Duplicates+s.Skipped, s.Dead, s.Failures)
	return err
}

// drive relays and answers until ctx ends.
func (r *relaying) drive(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.relay.Run(gctx) })
	g.Go(func() error { return r.api.run(gctx) })
	if r.carries != nil {
		g.Go(func() error { return r.carries.Run(gctx, r.conn) })
	}
	return g.Wait()
}

// open opens whatever the relay works with, and makes it. done closes that, after
// an error too.
func (r *relaying) open(ctx context.Context, log *slog.Logger) (done func() error, err error) {
	var closers []func() error
	done = func() error {
		var errs []error
		for _, c := range slices.Backward(closers) {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	db, dialect, err := r.at.openOutbox()
	if err != nil {
		return done, err
	}
	closers = append(closers, db.Close)
	if err := r.at.migrateOutbox(ctx, db, dialect); err != nil {
		return done, err
	}
	pub, closePublisher, err := r.publisher(ctx, log)
	if err != nil {
		return done, err
	}
	closers = append(closers, closePublisher)
	cfg := &outbox.RelayConfig{Logger: log, Lease: r.lease, Poison: poisons[r.poison], Share: r.share}
	conf := &outbox.Config{Logger: log}
	if err := r.readLog(cfg, conf, log); err != nil {
		return done, err
	}
	box := outbox.New(dialect, conf)
	op := box.Operator(db)
	if r.redis != "" {
		client := redis.NewClient(&redis.Options{Addr: r.redis})
		closers = append(closers, client.Close)
		if cfg.Keys, err = r.keys(ctx, client, op, log); err != nil {
			return done, fmt.Errorf("--redis %s: %w", r.redis, err)
		}
	}
	r.relay = outbox.NewRelay(box, db, pub, cfg)
	if r.courier {
		r.carries = sdk.NewCourier(box, db, &sdk.ParticipantConfig{Namespace: r.to.namespace, Logger: log})
	}
	r.api.namespace = r.to.namespace
	depth := func(ctx context.Context) (outbox.Backlog, error) { return outbox.Depth(ctx, db, dialect) }
	return done, r.api.open(ctx, op, metrics.NewRelay(r.relay, &metrics.RelayConfig{Depth: depth}), log)
}

// keys are the relay's keys in Redis. Their names tell databases apart that
// share it: otherwise a message of one could pass for a duplicate of the other's,
// and be dropped. A copy of a database has its identity, so its place counts too.
func (r *relaying) keys(ctx context.Context, client *redis.Client, op *outbox.Operator, log *slog.Logger) (outbox.Keys, error) {
	prefix := r.redisPrefix
	if prefix == "" {
		id, err := op.Identity(ctx)
		if err != nil {
			return nil, err
		}
		place, err := r.at.place()
		if err != nil {
			return nil, err
		}
		digest := sha256.Sum256([]byte(id + "\x00" + place))
		prefix = "amends:" + hex.EncodeToString(digest[:8]) + ":"
	}
	log.Debug("relay: keys in Redis", "prefix", prefix)
	return outbox.NewRedisKeys(client, &outbox.RedisConfig{Prefix: prefix, Logger: log})
}

// place tells a database apart from its copies elsewhere. By another name of the
// same server it is another one: then no duplicates are found, and none is lost.
func (l *location) place() (string, error) {
	if l.conf != nil {
		return "mysql\x00" + l.conf.Addr + "\x00" + l.conf.DBName, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(l.path)
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return "sqlite\x00" + host + "\x00" + path, nil
}

// publisher sends starts of sagas to the coordinator and all else to Kafka.
func (r *relaying) publisher(ctx context.Context, log *slog.Logger) (outbox.Publisher, func() error, error) {
	starts, other := nowhere("--coordinator"), nowhere("--kafka")
	var closers []func() error
	done := func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	if r.to.addr != "" {
		conn, err := r.to.dial()
		if err != nil {
			return nil, nil, err
		}
		closers, r.conn = append(closers, conn.Close), conn
		starts = sdk.NewStarter(sdk.NewClient(conn, &sdk.ClientConfig{Logger: log}))
	}
	if len(r.kafka) > 0 {
		k, err := r.openKafka(ctx, log)
		if err != nil {
			return nil, nil, errors.Join(err, done())
		}
		closers = append(closers, func() error { k.Close(); return nil })
		other = k
		if r.startsOverKafka {
			starts = k
		}
	}
	return outbox.Route(map[string]outbox.Publisher{sdk.StartTopic: starts}, other), done, nil
}

func (r *relaying) openKafka(ctx context.Context, log *slog.Logger) (*outbox.KafkaPublisher, error) {
	if err := r.kafkaLogin.try(ctx, log, kafkaUse{"--kafka", r.kafka}); err != nil {
		return nil, err
	}
	conf, login, err := r.kafkaLogin.open()
	if err != nil {
		return nil, err
	}
	k, err := outbox.NewKafka(r.kafka, &outbox.KafkaConfig{CreateTopics: r.createTopics, TLS: conf, SASL: login, Logger: log})
	if err != nil {
		return nil, &usageError{fmt.Errorf("--kafka: %w", err)}
	}
	return k, nil
}

// nowhere keeps messages in the outbox until the relay runs with the flag.
func nowhere(flag string) outbox.Publisher {
	return outbox.PublishFunc(func(_ context.Context, m outbox.Message) error {
		return fmt.Errorf("topic %q: the relay runs without %s", m.Topic, flag)
	})
}
