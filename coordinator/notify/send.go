package notify

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Bounds of the wait between two attempts.
const (
	firstBackoff  = 500 * time.Millisecond
	maxBackoff    = 30 * time.Second
	maxRetryAfter = 5 * time.Minute
)

// delivery is the state of a subscriber's one sender.
type delivery struct {
	*Notifier
	s       *subscriber
	attempt int // of the batch at the head
	alone   int // so many events are sent one by one: together they were rejected
}

// deliver sends a subscriber's events, in order, until ctx ends and then, for a
// while, what is still queued.
func (n *Notifier) deliver(ctx context.Context, s *subscriber) {
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(n.cfg.DrainTimeout, stop) })()
	d := &delivery{Notifier: n, s: s}
	for {
		batch := d.batch()
		if len(batch) == 0 {
			if ctx.Err() != nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-s.wake:
			}
			continue
		}
		wait, ok := d.send(sending, batch)
		if ok {
			continue
		}
		if ctx.Err() != nil {
			n.cfg.Logger.Warn("amends: events were not delivered before the end: alerts are told again after the next start",
				"sink", s.Name, "events", d.left())
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (d *delivery) batch() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alone > 0 {
		return d.s.head(1)
	}
	return d.s.head(d.cfg.BatchSize)
}

func (d *delivery) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.s.queue)
}

// send tries once. When it is not ok, the same is to be tried again after a wait.
func (d *delivery) send(ctx context.Context, batch []Event) (wait time.Duration, ok bool) {
	one, cancel := context.WithTimeout(ctx, d.cfg.SendTimeout)
	err := d.s.Sink.Send(one, batch)
	cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.cfg.Logger.With("sink", d.s.Name)
	switch {
	case err == nil:
		if d.attempt > 0 {
			log.Info("amends: events are delivered again", "failed_attempts", d.attempt)
		}
		d.attempt, d.alone = 0, max(d.alone-1, 0)
		d.s.settle(len(batch), &d.s.stats.Sent)
		return 0, true
	case errors.Is(err, ErrRejected) && len(batch) > 1:
		d.s.stats.Failures++
		d.alone = len(batch)
		return 0, true
	case errors.Is(err, ErrRejected):
		d.s.stats.Failures++
		log.Error("amends: an event was rejected and is dropped", "id", batch[0].ID, "type", batch[0].Type, "err", err)
		d.attempt, d.alone = 0, max(d.alone-1, 0)
		d.s.settle(1, &d.s.stats.Rejected)
		return 0, true
	}
	d.attempt++
	d.s.stats.Failures++
	wait = backoff(d.attempt, err)
	log.Warn("amends: events could not be delivered, trying again", "attempt", d.attempt, "after", wait,
		"queued", len(d.s.queue), "err", err)
	return wait, false
}

// backoff doubles with each attempt, takes a random half off, and is never
// shorter than what the sink asks for.
func backoff(attempt int, err error) time.Duration {
	wait := min(firstBackoff<<min(attempt-1, 10), maxBackoff)
	wait = wait/2 + rand.N(wait/2)
	var later *RetryAfterError
	if errors.As(err, &later) {
		wait = max(wait, min(later.After, maxRetryAfter))
	}
	return wait
}
