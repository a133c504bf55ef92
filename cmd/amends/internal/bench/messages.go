package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
	"github.com/amends-dev/amends/sdk"
)

const (
	createOrders = `CREATE TABLE orders (id VARCHAR(64) PRIMARY KEY, cents BIGINT NOT NULL)`
	placeOrder   = `INSERT INTO orders (id, cents) VALUES (?, ?)`

	// fillBatch is how many messages a transaction of a backlog writes.
	fillBatch = 500
	// patience bounds the wait for a backlog.
	patience = 10 * time.Minute
)

// shop is a service with an outbox.
type shop struct {
	*rig
	db      *sql.DB
	dialect *outbox.Dialect
	box     *outbox.Outbox
	topic   string
	brokers []string
}

func newShop(ctx context.Context, r *rig) (*shop, error) {
	db, dialect, err := r.database(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, createOrders); err != nil {
		return nil, err
	}
	box := outbox.New(dialect, &outbox.Config{MaxRows: -1, Logger: r.cfg.Logger})
	return &shop{rig: r, db: db, dialect: dialect, box: box, topic: "amends-bench-" + uuid.NewString()}, nil
}

// publisher connects to the brokers.
func (s *shop) publisher() (*outbox.KafkaPublisher, error) {
	var err error
	if s.brokers, err = s.broker(); err != nil {
		return nil, err
	}
	pub, err := outbox.NewKafka(s.brokers, &outbox.KafkaConfig{CreateTopics: true, Logger: s.cfg.Logger})
	if err == nil {
		s.undo = append(s.undo, func() error { pub.Close(); return nil })
	}
	return pub, err
}

func (s *shop) message(key int) outbox.Message {
	return outbox.Message{Topic: s.topic, Key: strconv.Itoa(key), Body: make([]byte, max(s.cfg.Payload, 1))}
}

// place writes an order, and a message if there is to be one.
func (s *shop) place(ctx context.Context, client int, message bool) error {
	return s.box.Tx(ctx, s.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, placeOrder, uuid.NewString(), 100); err != nil || !message {
			return err
		}
		return s.box.Write(ctx, tx, s.message(client))
	})
}

func runBusiness(ctx context.Context, r *rig) (Result, error) { return placing(ctx, r, false) }

func runOutbox(ctx context.Context, r *rig) (Result, error) { return placing(ctx, r, true) }

func placing(ctx context.Context, r *rig, message bool) (Result, error) {
	s, err := newShop(ctx, r)
	if err != nil {
		return Result{}, err
	}
	return r.loop(ctx, func(ctx context.Context, client int) error { return s.place(ctx, client, message) })
}

// runStartTx measures sagas from the local transaction that starts them.
func runStartTx(ctx context.Context, r *rig) (Result, error) {
	client, err := r.services(ctx)
	if err != nil {
		return Result{}, err
	}
	s, err := newShop(ctx, r)
	if err != nil {
		return Result{}, err
	}
	relay := outbox.NewRelay(s.box, s.db, sdk.NewStarter(client), &outbox.RelayConfig{Logger: r.cfg.Logger})
	r.run(ctx, relay.Run)
	definition := sagaOf(r.cfg)
	return r.loop(ctx, func(ctx context.Context, n int) error {
		var gid string
		err := s.box.Tx(ctx, s.db, func(tx *sql.Tx) (err error) {
			gid, err = sdk.StartTx(ctx, s.box, tx, definition, input{account: n * r.cfg.Steps}, nil)
			return err
		})
		if err != nil {
			return err
		}
		for {
			err := ended(client.Run(gid).Wait(ctx))
			if !errors.Is(err, sdk.ErrNotFound) { // else the relay has not brought it yet
				return err
			}
			wait(ctx, time.Millisecond)
		}
	})
}

// fill writes a backlog.
func (s *shop) fill(ctx context.Context) error {
	for n := 0; n < s.cfg.Messages; {
		err := s.box.Tx(ctx, s.db, func(tx *sql.Tx) error {
			msgs := make([]outbox.Message, 0, fillBatch)
			for i := range min(fillBatch, s.cfg.Messages-n) {
				msgs = append(msgs, s.message(n+i))
			}
			return s.box.Write(ctx, tx, msgs...)
		})
		if err != nil {
			return err
		}
		n += fillBatch
	}
	return nil
}

// drain measures how long it takes until count has come to all messages.
func (s *shop) drain(ctx context.Context, start func(), count func() int) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before, err := s.meter(ctx)
	if err != nil {
		return Result{}, err
	}
	begin := time.Now()
	start()
	for count() < s.cfg.Messages {
		if ctx.Err() != nil {
			return Result{}, fmt.Errorf("%d of %d messages after %v: %w", count(), s.cfg.Messages, time.Since(begin), ctx.Err())
		}
		wait(ctx, time.Millisecond)
	}
	took, n := time.Since(begin), int64(s.cfg.Messages)
	after, err := s.meter(ctx)
	return Result{
		Setup:   fmt.Sprintf("%s, backlog of %d, %d bytes each", s.cfg.Store, n, max(s.cfg.Payload, 1)),
		Started: n, Completed: n, Seconds: took.Seconds(), PerSecond: float64(n) / took.Seconds(), Cost: before.until(after, n),
	}, err
}

func runRelay(ctx context.Context, r *rig) (Result, error) {
	s, relay, err := backlog(ctx, r)
	if err != nil {
		return Result{}, err
	}
	return s.drain(ctx, func() { r.run(ctx, relay.Run) }, func() int { return int(relay.Stats().Published) }) //nolint:gosec // at most Messages
}

// backlog makes a shop whose outbox is full, and the relay that is to empty it.
func backlog(ctx context.Context, r *rig) (*shop, *outbox.Relay, error) {
	s, err := newShop(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	pub, err := s.publisher()
	if err != nil {
		return nil, nil, err
	}
	relay := outbox.NewRelay(s.box, s.db, pub, &outbox.RelayConfig{Logger: r.cfg.Logger})
	return s, relay, s.fill(ctx)
}

// runConsume measures the handling of what is in the log already, once each.
func runConsume(ctx context.Context, r *rig) (Result, error) {
	s, relay, err := backlog(ctx, r)
	if err != nil {
		return Result{}, err
	}
	_, err = s.drain(ctx, func() { r.run(ctx, relay.Run) }, func() int { return int(relay.Stats().Published) }) //nolint:gosec // at most Messages
	if err != nil {
		return Result{}, err
	}
	var mu sync.Mutex
	handled := 0
	consumer, err := s.consumer(func(context.Context, *sql.Tx, outbox.Message) error {
		mu.Lock()
		defer mu.Unlock()
		handled++
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	return s.drain(ctx, func() { r.run(ctx, consumer.Run) }, func() int {
		mu.Lock()
		defer mu.Unlock()
		return handled
	})
}

func (s *shop) consumer(handle inbox.Handler) (*inbox.Consumer, error) {
	return inbox.NewConsumer(s.brokers, s.topic, []string{s.topic}, s.db, s.dialect, handle, &inbox.ConsumerConfig{Logger: s.cfg.Logger})
}
