package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/outbox"
)

// Handler handles a message in tx, which also holds the message's claim: what it does through tx takes effect once.
// It must not commit or roll back, and must return tx's errors: MySQL rolls a deadlock's victim back whole, with its
// claim, and carries out by itself whatever comes after. An error, or a panic, rolls tx back and the message is tried
// again; one that wraps outbox.ErrPoison sends it to the dead letters at once. A message from a retry topic has the topic
// that it came from, and headers that tell what failed (HeaderError and those beside it).
type Handler func(ctx context.Context, tx *sql.Tx, m outbox.Message) error

// DoneCache remembers outside of the database what a source has handled, so that most duplicates cost no transaction.
// It may forget at any time; its errors are ignored, so it should log them. outbox.RedisKeys is one.
type DoneCache interface {
	// Done tells, for each id, whether it was marked.
	Done(ctx context.Context, source string, ids []string) ([]bool, error)
	// MarkDone is called after the commit, never before.
	MarkDone(ctx context.Context, source string, ids []string) error
}

// Consumer reads Kafka topics as a member of a consumer group and runs a handler for each message, once: the handler's
// transaction holds the claim of the message's id. Messages of one key of a partition are handled one after the other,
// in the order of the log; others in parallel. Offsets are committed after that, in order, never past a message that is
// neither handled, nor in a retry topic, nor a dead letter. A message without the header outbox.HeaderID has its place
// in the log as its id: after its topic was deleted and made anew, such messages pass for the old ones that had these
// places, so give the consumer another Source then.
//
// A rebalance takes all partitions from all members of the group and gives them out again: Kafka's cooperative protocol
// needs a client that kafka-go is not. It is short: partitions stay with their member as far as the numbers allow (the
// protocol "amends-sticky", where all members know it), and what was fetched of such a partition is kept.
type Consumer struct {
	cfg       ConsumerConfig
	brokers   []string
	group     string
	topics    []string
	retries   *retries // nil without RetryDelays
	db        *sql.DB
	inbox     *Inbox
	handler   Handler
	transport *kafka.Transport
	client    *kafka.Client
	dead      outbox.Publisher
	own       *outbox.KafkaPublisher // nil where there is no need for one
	flow      flow

	mu       sync.Mutex
	trackers map[TopicPartition]*tracker // of the last generation
	at       int32                       // the last generation

	handled, duplicates, deadCount, failures, fetched, retried, parked atomic.Uint64
}

// NewConsumer makes a consumer of topics for a group. It connects when it runs. The inbox's tables must be there
// (outbox.Migrate). A nil cfg is the zero ConsumerConfig. Mistakes are returned all at once.
func NewConsumer(brokers []string, group string, topics []string, db *sql.DB, d *outbox.Dialect, handler Handler,
	cfg *ConsumerConfig,
) (*Consumer, error) {
	con, err := newConsumer("NewConsumer", brokers, group, topics, cfg, checkDatabase(db, d, handler))
	if err != nil {
		return nil, err
	}
	if con.cfg.Concurrency == 0 && d == outbox.SQLite {
		con.cfg.Concurrency = 1
	}
	con.db, con.inbox, con.handler = db, New(d, con.cfg.Source), handler
	if _, err := con.inbox.Key("x"); err != nil {
		return nil, fmt.Errorf("inbox: ConsumerConfig.Source: %w", err)
	}
	return con, nil
}

const (
	defaultConcurrency = 32
	leastConcurrency   = 8 // where the pool has as many connections, and of a forwarder
)

// concurrency is how many handlers run at once: by default as many as leave half of a bounded pool to others.
func (c *Consumer) concurrency() int {
	if c.cfg.Concurrency > 0 {
		return c.cfg.Concurrency
	}
	most := c.db.Stats().MaxOpenConnections
	if most <= 0 { // no bound
		return defaultConcurrency
	}
	return min(defaultConcurrency, max(most/2, min(most, leastConcurrency)))
}

// newConsumer makes what needs no database. wrong are mistakes found before.
func newConsumer(caller string, brokers []string, group string, topics []string, cfg *ConsumerConfig, wrong error) (*Consumer, error) {
	c := ConsumerConfig{}
	if cfg != nil {
		c = *cfg
	}
	err := errors.Join(c.complete(group), checkConsumer(caller, brokers, group, topics), wrong)
	retries, wrongNames := newRetries(topics, group, c.RetryDelays)
	if err = errors.Join(err, wrongNames); err != nil {
		return nil, err
	}
	con := &Consumer{
		cfg: c, brokers: brokers, group: group, topics: topics, retries: retries,
		transport: &kafka.Transport{ClientID: "amends", TLS: c.TLS, SASL: c.SASL}, dead: c.DeadLetters,
	}
	con.client = &kafka.Client{Addr: kafka.TCP(brokers...), Transport: con.transport, Timeout: requestTimeout}
	if con.dead == nil || retries != nil {
		con.own, err = outbox.NewKafka(brokers, &outbox.KafkaConfig{CreateTopics: true, TLS: c.TLS, SASL: c.SASL, Logger: c.Logger})
		if err != nil {
			return nil, err
		}
	}
	if con.dead == nil {
		con.dead = con.own
	}
	return con, nil
}

func checkDatabase(db *sql.DB, d *outbox.Dialect, handler Handler) error {
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("inbox: NewConsumer: the database is nil"))
	}
	if d == nil {
		errs = append(errs, errors.New("inbox: NewConsumer: the dialect is nil: use outbox.SQLite or outbox.MySQL"))
	}
	if handler == nil {
		errs = append(errs, errors.New("inbox: NewConsumer: the handler is nil"))
	}
	return errors.Join(errs...)
}

func checkConsumer(caller string, brokers []string, group string, topics []string) error {
	var errs []error
	wrong := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New("inbox: "+caller+": "+text))
		}
	}
	wrong(len(brokers) == 0, "no brokers: name at least one host:port")
	wrong(group == "", "no group: name the consumer group")
	wrong(len(topics) == 0, "no topics: name at least one")
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

// Run consumes until ctx ends; then it stops fetching, lets the running handlers finish, commits, leaves the group and
// returns nil. Trouble with brokers or the database is retried for as long as it takes; only a SessionTimeout that the
// brokers refuse is an error. Call it once at a time.
func (c *Consumer) Run(ctx context.Context) error {
	defer c.hangUp()
	if !c.awaitTopics(ctx) {
		return nil
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: c.group, Brokers: c.brokers, Topics: c.allTopics(),
		Dialer:            &kafka.Dialer{ClientID: "amends", Timeout: requestTimeout, TLS: c.cfg.TLS, SASLMechanism: c.cfg.SASL},
		GroupBalancers:    []kafka.GroupBalancer{&sticky{c.owned}, kafka.RangeGroupBalancer{}, kafka.RoundRobinGroupBalancer{}},
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

// hangUp lets go of connections and of what was fetched.
func (c *Consumer) hangUp() {
	c.transport.CloseIdleConnections()
	if c.own != nil {
		c.own.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trackers, c.at = nil, 0
}
