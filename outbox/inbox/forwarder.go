package inbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"

	"github.com/amends-dev/amends/outbox"
)

// NewForwarder makes a consumer that hands the messages of topics to a publisher, such as the starter of package sdk,
// without a database. An offset is committed once the publisher has acknowledged all before it. So nothing is lost, and
// what was under way at a crash or a rebalance is published again: the publisher, or who is behind it, has to know a
// message again by its id or its content. Messages of one key of a partition are published one after the other, in the
// order of the log, each in a call of its own; up to Concurrency (default 8) calls run at once.
//
// A message whose error wraps outbox.ErrPoison goes to the dead letters. Any other error is tried again for as long as
// it takes, and holds up what is behind the message in its key; so a publisher says what can never be published.
//
// A nil cfg is the zero ConsumerConfig. Its fields Attempts, RetryDelays, KeepOrder and HighWater have to be zero, as
// they have no meaning here. Mistakes are returned all at once.
func NewForwarder(brokers []string, group string, topics []string, to outbox.Publisher, cfg *ConsumerConfig) (*Consumer, error) {
	con, err := newConsumer("NewForwarder", brokers, group, topics, cfg, checkForwarder(to, cfg))
	if err != nil {
		return nil, err
	}
	con.cfg.Concurrency = cmp.Or(con.cfg.Concurrency, leastConcurrency)
	con.inbox = New(nil, con.cfg.Source)
	con.handler = func(ctx context.Context, _ *sql.Tx, m outbox.Message) error {
		return errors.Join(to.Publish(ctx, []outbox.Message{m})...)
	}
	return con, nil
}

func checkForwarder(to outbox.Publisher, cfg *ConsumerConfig) error {
	var errs []error
	if to == nil {
		errs = append(errs, errors.New("inbox: NewForwarder: the publisher is nil"))
	}
	if cfg != nil && (cfg.Attempts != 0 || len(cfg.RetryDelays) > 0 || cfg.KeepOrder || cfg.HighWater != HighWaterOff) {
		errs = append(errs, errors.New("inbox: NewForwarder: ConsumerConfig.Attempts, RetryDelays, KeepOrder and HighWater "+
			"are for a Consumer with a database: leave them out"))
	}
	return errors.Join(errs...)
}
