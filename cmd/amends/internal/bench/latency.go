package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

const (
	// arrivalTime is what a message may take.
	arrivalTime = 30 * time.Second
	// readerPool is how many connections the consumer's service has: with so many it handles as many messages at
	// once as it does by default where the pool has no bound.
	readerPool = 64
)

// runLatency measures from just before the commit of a message to its handler,
// at the open loop's rate, once consumers have joined their group. A message that
// is not handled half a minute after the last one was written has failed.
func runLatency(ctx context.Context, r *rig) (Result, error) {
	if r.cfg.Rate == 0 {
		return Result{}, errors.New("needs a rate: give --rate, for example 1000")
	}
	s, err := newShop(ctx, r)
	if err != nil {
		return Result{}, err
	}
	a := &arrivals{hist: hdrhistogram.New(1, longest, digits), sent: map[string]time.Time{}}
	relay, consumer, err := s.pipeline(ctx, a)
	if err != nil {
		return Result{}, err
	}
	r.run(ctx, relay.Run, consumer.Run)
	send := func(ctx context.Context, client int) error {
		m := s.message(client)
		m.ID = uuid.NewString()
		err := s.box.Tx(ctx, s.db, func(tx *sql.Tx) error {
			err := s.box.Write(ctx, tx, m)
			a.leaves(m.ID)
			return err
		})
		if err != nil {
			a.stays(m.ID)
		}
		return err
	}
	for client := range r.cfg.Clients {
		if err := send(ctx, client); err != nil {
			return Result{}, err
		}
	}
	if missing := a.wait(ctx); missing > 0 {
		return Result{}, fmt.Errorf("%d messages were not handled in %v: no consumer came", missing, arrivalTime)
	}
	a.restart(time.Now().Add(r.cfg.Warmup))
	res, err := r.loop(ctx, send)
	res.Failed += a.wait(ctx)
	res.Latency = a.latency()
	return res, err
}

// pipeline makes a relay, and a consumer in another service, with connections of its own.
func (s *shop) pipeline(ctx context.Context, a *arrivals) (*outbox.Relay, *inbox.Consumer, error) {
	pub, err := s.publisher()
	if err != nil {
		return nil, nil, err
	}
	relay := outbox.NewRelay(s.box, s.db, pub, &outbox.RelayConfig{Logger: s.cfg.Logger})
	reader := *s
	if reader.db, _, err = s.database(ctx); err != nil {
		return nil, nil, err
	}
	reader.db.SetMaxOpenConns(readerPool)
	reader.db.SetMaxIdleConns(readerPool)
	consumer, err := reader.consumer(func(_ context.Context, _ *sql.Tx, m outbox.Message) error {
		a.arrived(m.ID)
		return nil
	})
	return relay, consumer, err
}

// arrivals are messages on their way, by when their commit was asked for.
type arrivals struct {
	mu   sync.Mutex // guards all of it
	from time.Time  // those that left earlier do not count
	sent map[string]time.Time
	hist *hdrhistogram.Histogram
}

func (a *arrivals) restart(from time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.from = from
	a.hist.Reset()
}

// leaves notes that a message is about to be committed.
func (a *arrivals) leaves(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent[id] = time.Now()
}

// stays notes that it was not.
func (a *arrivals) stays(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sent, id)
}

// arrived counts a message the first time that it is handled.
func (a *arrivals) arrived(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left, ok := a.sent[id]
	delete(a.sent, id)
	if ok && !left.Before(a.from) {
		// Too long for the histogram is counted as its longest.
		_ = a.hist.RecordValue(min(max(time.Since(left).Microseconds(), 1), longest))
	}
}

// wait returns how many of those that count did not arrive in time.
func (a *arrivals) wait(ctx context.Context) int64 {
	for until := time.Now().Add(arrivalTime); ; wait(ctx, 10*time.Millisecond) {
		missing := a.missing()
		if missing == 0 || ctx.Err() != nil || time.Now().After(until) {
			return missing
		}
	}
}

func (a *arrivals) missing() (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, left := range a.sent {
		if !left.Before(a.from) {
			n++
		}
	}
	return n
}

func (a *arrivals) latency() Latency {
	a.mu.Lock()
	defer a.mu.Unlock()
	ms := func(p float64) float64 { return float64(a.hist.ValueAtQuantile(p)) / 1000 }
	return Latency{P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(a.hist.Max()) / 1000}
}
