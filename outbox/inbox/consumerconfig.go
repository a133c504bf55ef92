package inbox

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	"go.opentelemetry.io/otel/trace"

	"github.com/amends-dev/amends/outbox"
)

// ConsumerConfig configures NewConsumer. The zero value has the defaults.
type ConsumerConfig struct {
	// Source is what claims are made for; default the group.
	Source string
	// HighWater, where it is not HighWaterOff, remembers one number per key instead of one row per message. The
	// messages of a key have to come in the order of that number, however often; without one, and without a key, a
	// message goes by its claim. What is retried, parked or requeued does, too.
	//
	// HighWaterSeq needs producers that number the messages of each key of a topic. A second message with the highest
	// number and another id is not dropped: it becomes a dead letter (ErrSequence). A lower number is a duplicate.
	// HighWaterOffset needs nothing of producers, but each copy in the log is a message of its own, such as those of a
	// relay that crashed; and after a topic was deleted and made anew, or lost its end in an unclean election of a leader,
	// new messages pass for old ones: give it another Source then. Nor does it know again what another group's dead letter
	// brings back (DeadLetters.Requeue).
	//
	// What was handled under one HighWater is not known under another one: change it only after all members have ended in
	// order, so that every offset is committed.
	HighWater HighWater
	// Concurrency is how many handlers run at once, each with another key. Messages without a key run side by side. Each
	// has a transaction and so a connection, and waits for its own commit: 32 at 10 ms are 3,200 messages a second. Default
	// 32; of a pool with a bound (sql.DB.SetMaxOpenConns) at most half, or 8 where that is more and there are as many; on
	// SQLite 1, as it has one writer; of a forwarder 8. Let the pool keep as many (SetMaxIdleConns, 2 by default), or
	// connections are opened over and over.
	Concurrency int
	// Buffer is how many messages of a partition may be fetched and not done before fetching pauses; default 1,000.
	// BufferBytes is how many bytes they may have in all partitions together, each with an equal share, and each
	// message with 1 KiB on top for what is kept beside it; default 64 MiB. What was fetched last may go over it, by a
	// batch of records of each partition: the smallest that brokers give, usually up to 1 MiB before decompression.
	Buffer, BufferBytes int
	// Attempts is how often a handler may fail before its message goes to the first retry topic, or to the dead letters;
	// default 5. A database that does not answer costs no attempt.
	Attempts int
	// Backoff and MaxBackoff bound the pause between attempts, which doubles; default 100 ms and 10 s.
	Backoff, MaxBackoff time.Duration
	// RetryDelays, if any, are those of retry topics, growing, in whole milliseconds: a message that failed goes to
	// <topic>.<group>.retry.<delay>, for example orders.mailer.retry.1m, where the group finds it and tries it once more
	// when the delay has passed; then to the next one; then to the dead letters. Messages behind it in its topic go on
	// meanwhile, also those of its key, unless KeepOrder. Missing topics are made, with as many partitions as the
	// topic has. Their retention has to be longer than their delay, and all members of the group need the same delays.
	// An error that wraps outbox.ErrPoison skips the retries.
	RetryDelays []time.Duration
	// KeepOrder has messages of a key that has one in the retry topics wait behind it there, in order, until it is
	// handled or a dead letter; other keys go on. A row in the database holds the place of each message that waits, and
	// each message costs one more read. A key with messages that fail one after the other waits for all their delays,
	// and nothing but the topics' retention bounds how many wait. It may be changed while messages wait: those go by what
	// it was when they were sent there.
	KeepOrder bool
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
		"BufferBytes": int64(c.BufferBytes),
	} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("inbox: ConsumerConfig.%s is negative: use 0 for the default", name))
		}
	}
	c.Source = cmp.Or(c.Source, group)
	c.Buffer = cmp.Or(c.Buffer, 1000)
	c.BufferBytes = cmp.Or(c.BufferBytes, 64<<20)
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
	if c.HighWater < HighWaterOff || c.HighWater > HighWaterOffset {
		errs = append(errs, fmt.Errorf("inbox: ConsumerConfig.HighWater is %d: use HighWaterOff, HighWaterSeq or HighWaterOffset",
			c.HighWater))
	}
	if c.KeepOrder && len(c.RetryDelays) == 0 {
		errs = append(errs, errors.New("inbox: ConsumerConfig.KeepOrder is for RetryDelays: without these, order is always kept"))
	}
	for i, d := range c.RetryDelays {
		if d <= 0 || d%time.Millisecond != 0 || i > 0 && d <= c.RetryDelays[i-1] {
			errs = append(errs, fmt.Errorf("inbox: ConsumerConfig.RetryDelays[%d] is %v: use whole milliseconds, "+
				"each more than the one before", i, d))
		}
	}
	return errors.Join(errs...)
}
