package inbox

import (
	"cmp"
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"go.opentelemetry.io/otel/trace"

	"github.com/amends-dev/amends/outbox"
)

// Handler handles a message in tx, which also holds the message's claim: what it does through tx takes effect once.
// It must not commit or roll back. An error, or a panic, rolls tx back and the message is tried again; one that wraps
// outbox.ErrPoison sends it to the dead letters at once.
type Handler func(ctx context.Context, tx *sql.Tx, m outbox.Message) error

// DoneCache remembers outside of the database what a source has handled, so that most duplicates cost no transaction.
// It may forget at any time; its errors are ignored, so it should log them. outbox.RedisKeys is one.
type DoneCache interface {
	// Done tells, for each id, whether it was marked.
	Done(ctx context.Context, source string, ids []string) ([]bool, error)
	// MarkDone is called after the commit, never before.
	MarkDone(ctx context.Context, source string, ids []string) error
}

// ConsumerConfig configures NewConsumer. The zero value has the defaults.
type ConsumerConfig struct {
	// Source is what claims are made for; default the group.
	Source string
	// Concurrency is how many handlers run at once; default 8, on SQLite 1, as it has one writer.
	Concurrency int
	// Buffer is how many messages of a partition may be fetched and not done before fetching pauses; default 1,000.
	// One fetch, of about 1 MiB, may come on top.
	Buffer int
	// Attempts is how often a handler may fail before its message becomes a dead letter; default 5. A database that
	// does not answer costs no attempt.
	Attempts int
	// Backoff and MaxBackoff bound the pause between attempts, which doubles; default 100 ms and 10 s.
	Backoff, MaxBackoff time.Duration
	// DeadLetters takes what could not be handled, in the topic with ".dead" at its end; default a KafkaPublisher for
	// the same brokers, which creates that topic.
	DeadLetters outbox.Publisher
	// CreateTopics makes missing topics with the brokers' defaults. Otherwise Run waits for them.
	CreateTopics bool
	// Done, if not nil, saves transactions for duplicates.
	Done DoneCache
	// SessionTimeout is after how long the brokers give a silent consumer's partitions to others; default 10 s. They
	// take no less than 6 s, unless they are told to.
	// Heartbeat is the pause between its signs of life, and so about how long a rebalance takes; default a tenth.
	SessionTimeout, Heartbeat time.Duration
	// CommitInterval is how often offsets are committed; default 100 ms.
	CommitInterval time.Duration
	// DrainTimeout is how long running handlers may take to finish once their partitions are given back, before
	// their context is cancelled; default half of SessionTimeout.
	DrainTimeout time.Duration
	// TLS and SASL secure the connections; nil means plain TCP and no authentication.
	TLS  *tls.Config
	SASL sasl.Mechanism
	// TracerProvider makes a span of each attempt of a handler, in the trace of whoever wrote the message (its header
	// traceparent); nil means OpenTelemetry's global one.
	TracerProvider trace.TracerProvider
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

func (c *ConsumerConfig) complete(group string) error {
	var errs []error
	for name, v := range map[string]int64{
		"Concurrency": int64(c.Concurrency), "Buffer": int64(c.Buffer), "Attempts": int64(c.Attempts),
		"Backoff": int64(c.Backoff), "MaxBackoff": int64(c.MaxBackoff), "SessionTimeout": int64(c.SessionTimeout),
		"Heartbeat": int64(c.Heartbeat), "CommitInterval": int64(c.CommitInterval), "DrainTimeout": int64(c.DrainTimeout),
	} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("inbox: ConsumerConfig.%s is negative: use 0 for the default", name))
		}
	}
	c.Source = cmp.Or(c.Source, group)
	c.Buffer = cmp.Or(c.Buffer, 1000)
	c.Attempts = cmp.Or(c.Attempts, 5)
	c.Backoff = cmp.Or(c.Backoff, 100*time.Millisecond)
	c.MaxBackoff = max(c.Backoff, cmp.Or(c.MaxBackoff, 10*time.Second))
	c.SessionTimeout = cmp.Or(c.SessionTimeout, 10*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, c.SessionTimeout/10)
	c.CommitInterval = cmp.Or(c.CommitInterval, 100*time.Millisecond)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, c.SessionTimeout/2)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	if c.Heartbeat >= c.SessionTimeout && c.Heartbeat > 0 {
		errs = append(errs, fmt.Errorf("inbox: ConsumerConfig.Heartbeat %v is not below SessionTimeout %v: use a tenth of it",
			c.Heartbeat, c.SessionTimeout))
	}
	return errors.Join(errs...)
}

// ConsumerStats counts since the consumer was made.
type ConsumerStats struct {
	Handled    uint64 // messages whose handler's transaction committed
	Duplicates uint64 // messages that were handled before, by claim or by the done cache
	Dead       uint64 // messages sent to the dead letters
	Failures   uint64 // failed attempts of all kinds
}

// Consumer reads Kafka topics as a member of a consumer group and runs a handler for each message, once: the handler's
// transaction holds the claim of the message's id. Messages of one key of a partition are handled one after the other,
// in the order of the log; others in parallel. Offsets are committed after that, in order, never past a message that is
// neither handled nor a dead letter. A message without the header outbox.HeaderID has its place in the log as its id.
type Consumer struct {
	cfg       ConsumerConfig
	brokers   []string
	group     string
	topics    []string
	db        *sql.DB
	inbox     *Inbox
	handler   Handler
	transport *kafka.Transport
	client    *kafka.Client
	dead      outbox.Publisher

	handled, duplicates, deadCount, failures atomic.Uint64
}

// NewConsumer makes a consumer of topics for a group. It connects when it runs. The inbox's table must be there
// (outbox.Migrate). A nil cfg is the zero ConsumerConfig. Mistakes are returned all at once.
func NewConsumer(brokers []string, group string, topics []string, db *sql.DB, d *outbox.Dialect, handler Handler,
	cfg *ConsumerConfig,
) (*Consumer, error) {
	c := ConsumerConfig{}
	if cfg != nil {
		c = *cfg
	}
	err := errors.Join(c.complete(group), checkConsumer(brokers, group, topics, db, d, handler))
	if err != nil {
		return nil, err
	}
	if c.Concurrency == 0 {
		c.Concurrency = 8
		if d == outbox.SQLite {
			c.Concurrency = 1
		}
	}
	if _, err := New(d, c.Source).Key("x"); err != nil {
		return nil, fmt.Errorf("inbox: ConsumerConfig.Source: %w", err)
	}
	con := &Consumer{
		cfg: c, brokers: brokers, group: group, topics: topics, db: db, inbox: New(d, c.Source), handler: handler,
		transport: &kafka.Transport{ClientID: "amends", TLS: c.TLS, SASL: c.SASL}, dead: c.DeadLetters,
	}
	con.client = &kafka.Client{Addr: kafka.TCP(brokers...), Transport: con.transport, Timeout: requestTimeout}
	if con.dead == nil {
		p, err := outbox.NewKafka(brokers, &outbox.KafkaConfig{CreateTopics: true, TLS: c.TLS, SASL: c.SASL, Logger: c.Logger})
		if err != nil {
			return nil, err
		}
		con.dead = p
	}
	return con, nil
}

func checkConsumer(brokers []string, group string, topics []string, db *sql.DB, d *outbox.Dialect, handler Handler) error {
	var errs []error
	wrong := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New("inbox: NewConsumer: "+text))
		}
	}
	wrong(len(brokers) == 0, "no brokers: name at least one host:port")
	wrong(group == "", "no group: name the consumer group")
	wrong(len(topics) == 0, "no topics: name at least one")
	wrong(db == nil, "the database is nil")
	wrong(d == nil, "the dialect is nil: use outbox.SQLite or outbox.MySQL")
	wrong(handler == nil, "the handler is nil")
	for _, b := range brokers {
		_, _, err := net.SplitHostPort(b)
		wrong(err != nil, fmt.Sprintf("broker %q is not host:port", b))
	}
	for _, t := range topics {
		wrong(t == "", "a topic's name is empty")
		wrong(len(t)+len(deadSuffix) > outbox.MaxTopic,
			fmt.Sprintf("topic %q leaves no room for %q within %d bytes", t, deadSuffix, outbox.MaxTopic))
	}
	return errors.Join(errs...)
}

// Stats answers the counts so far.
func (c *Consumer) Stats() ConsumerStats {
	return ConsumerStats{
		Handled: c.handled.Load(), Duplicates: c.duplicates.Load(), Dead: c.deadCount.Load(), Failures: c.failures.Load(),
	}
}

// Run consumes until ctx ends; then it stops fetching, lets the running handlers finish, commits, leaves the group and
// returns nil. Trouble with brokers or the database is retried for as long as it takes; only a SessionTimeout that the
// brokers refuse is an error. Call it once at a time.
func (c *Consumer) Run(ctx context.Context) error {
	defer c.transport.CloseIdleConnections()
	if !c.awaitTopics(ctx) {
		return nil
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.group, Brokers: c.brokers, Topics: c.topics,
		Dialer:            &kafka.Dialer{ClientID: "amends", Timeout: requestTimeout, TLS: c.cfg.TLS, SASLMechanism: c.cfg.SASL},
		HeartbeatInterval: c.cfg.Heartbeat, SessionTimeout: c.cfg.SessionTimeout, RebalanceTimeout: 3 * c.cfg.SessionTimeout,
		JoinGroupBackoff: 300 * time.Millisecond, WatchPartitionChanges: true, StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return fmt.Errorf("inbox: consumer group %q: %w", c.group, err)
	}
	for {
		gen, err := group.Next(ctx)
		switch {
		case err == nil:
			gen.Start(func(ended context.Context) { c.generation(ctx, ended, gen) })
		case ctx.Err() != nil:
			return group.Close() // waits for the generation
		case errors.Is(err, kafka.InvalidSessionTimeout):
			return errors.Join(fmt.Errorf("inbox: consumer group %q: ConsumerConfig.SessionTimeout %v is refused: use one within the "+
				"brokers' group.min.session.timeout.ms (usually 6 s) and group.max.session.timeout.ms (30 min): %w",
				c.group, c.cfg.SessionTimeout, err), group.Close())
		default:
			c.cfg.Logger.Warn("Kafka: joining the consumer group again", "group", c.group, "error", err)
		}
	}
}

// awaitTopics waits until all topics exist: kafka-go would join the group over and over. False when ctx ended.
func (c *Consumer) awaitTopics(ctx context.Context) bool {
	for pause := (pacer{c.cfg.Backoff, c.cfg.MaxBackoff}); ; {
		missing, err := c.missingTopics(ctx)
		if err == nil && len(missing) == 0 {
			return true
		}
		if err == nil && c.cfg.CreateTopics {
			_, err = c.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: missing})
		}
		if ctx.Err() == nil {
			c.cfg.Logger.Info("Kafka: topics are missing", "group", c.group, "topics", missing, "error", err)
		}
		if !pause.wait(ctx) {
			return false
		}
		c.transport.CloseIdleConnections() // and with them the cached list of topics
	}
}

func (c *Consumer) missingTopics(ctx context.Context) ([]kafka.TopicConfig, error) {
	res, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: c.topics})
	if err != nil {
		return nil, err
	}
	var missing []kafka.TopicConfig
	for _, t := range res.Topics {
		if t.Error != nil || len(t.Partitions) == 0 {
			missing = append(missing, kafka.TopicConfig{Topic: t.Name, NumPartitions: -1, ReplicationFactor: -1})
		}
	}
	return missing, nil
}

// pacer doubles a pause up to most.
type pacer struct{ pause, most time.Duration }

// wait sleeps for the next pause; false when ctx ended.
func (p *pacer) wait(ctx context.Context) bool {
	t := time.NewTimer(p.pause)
	defer t.Stop()
	p.pause = min(2*p.pause, p.most)
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
