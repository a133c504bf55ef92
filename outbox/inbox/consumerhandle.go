package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// process brings a message to its end: handled, known, in a retry topic, or a dead letter. False when the generation
// ended before.
func (g *generation) process(ended context.Context, it *item) bool {
	if !g.untilDue(ended, it) {
		return false
	}
	limit := g.c.cfg.Attempts
	if it.tracker.retry != nil {
		limit = 1
	}
	attempts := 0
	var why error // the handler's last error
	behind := false
	handled := g.persist(ended, it, true, func() (settled bool, err error) {
		fault, err := g.handle(it)
		behind = errors.Is(err, errBehind)
		switch {
		case behind:
			return true, nil
		case fault:
			attempts++
			why = err
		case err == nil:
			why = nil
		}
		return err == nil || attempts >= limit || errors.Is(why, outbox.ErrPoison), err
	})
	switch {
	case !handled:
		return false
	case behind:
		return g.sendOn(ended, it, it.place.attempts, errBehind)
	case why == nil:
		return true
	}
	return g.sendOn(ended, it, it.place.attempts+attempts, why)
}

func settledBy(err error) (bool, error) { return err == nil, err }

// untilDue waits until a message may be tried; false when the generation ended before.
func (g *generation) untilDue(ended context.Context, it *item) bool {
	wait := time.Until(it.place.due)
	if it.place.due.IsZero() || wait <= 0 {
		return ended.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ended.Done():
		return false
	}
}

// persist calls try, with growing pauses and in a slot if it handles, until it is settled. False when the generation
// ended before.
func (g *generation) persist(ended context.Context, it *item, handles bool, try func() (settled bool, err error)) bool {
	for pause := g.pacer(); ; {
		if handles && !g.slot(ended, it.tracker) || ended.Err() != nil {
			return false
		}
		settled, err := try()
		if handles {
			<-g.slots
		}
		if err != nil {
			g.c.failures.Add(1)
			g.c.cfg.Logger.Warn("inbox: message not handled", "group", g.c.group, "topic", it.message.Topic,
				"id", it.message.ID, "partition", it.place.partition, "offset", it.place.offset, "error", err)
		}
		if settled {
			return true
		}
		if !pause.wait(ended) {
			return false
		}
	}
}

// slot waits until a handler may begin; false when the generation ended before.
func (g *generation) slot(ended context.Context, t *tracker) bool {
	for {
		paused, changed := g.c.flow.state(t.origin, t.originPartition())
		if paused {
			select {
			case <-changed:
			case <-ended.Done():
				return false
			}
			continue
		}
		select {
		case g.slots <- struct{}{}:
		case <-changed:
			continue
		case <-ended.Done():
			return false
		}
		paused, _ = g.c.flow.state(t.origin, t.originPartition())
		if ended.Err() == nil && !paused { // both were ready
			return true
		}
		<-g.slots
		if ended.Err() != nil {
			return false
		}
	}
}

// handle runs the handler with the claim. fault tells that an error is the message's own, as far as one can see: a
// commit that a constraint refuses is, too.
func (g *generation) handle(it *item) (fault bool, err error) {
	c := g.c
	ran := false
	first, err := c.once(g.handling, it, func(tx *sql.Tx) error {
		return c.inTurn(g.handling, tx, it, func() error {
			ran = true
			return c.call(g.handling, tx, it.message)
		})
	})
	if err == nil && !first {
		err = c.settled(g.handling, it)
	}
	switch {
	case errors.Is(err, ErrSequence):
		return true, err
	case errors.Is(err, errGone): // perhaps a dead letter, which may come back: it is not marked as done
		c.duplicates.Add(1)
		return false, nil
	case err != nil:
		return ran && c.isFault(g.handling, err), err
	}
	if first {
		c.handled.Add(1)
	} else {
		c.duplicates.Add(1)
	}
	if c.cfg.Done != nil {
		g.mu.Lock()
		g.done = append(g.done, it.message.ID)
		g.mu.Unlock()
	}
	return false, nil
}

// isFault tells whether a handler's error is its message's own.
func (c *Consumer) isFault(ctx context.Context, err error) bool {
	if c.db == nil { // a publisher tells; all else is its outage
		return errors.Is(err, outbox.ErrPoison)
	}
	return ctx.Err() == nil && !c.inbox.d.Retryable(err) && c.db.PingContext(ctx) == nil
}

// once runs fn unless the message was handled, by its claim or by its key's mark. A forwarder has neither.
func (c *Consumer) once(ctx context.Context, it *item, fn func(tx *sql.Tx) error) (first bool, err error) {
	if c.db == nil {
		return true, fn(nil)
	}
	at, ok := c.placeOf(it)
	if !ok {
		return c.inbox.Once(ctx, c.db, it.message.ID, fn)
	}
	key, err := c.inbox.markKey(at)
	if err != nil {
		return false, err
	}
	return c.inbox.once(ctx, c.db, c.inbox.above(ctx, key, at), fn)
}

// placeOf is the message's place in its source's sequence; false for one that goes by its claim.
func (c *Consumer) placeOf(it *item) (Place, bool) {
	m := &it.message
	requeued := m.Headers[HeaderRequeued] != "" && m.Headers[HeaderGroup] == c.group
	if c.cfg.HighWater == HighWaterOff || m.Key == "" || it.tracker.retry != nil || requeued {
		return Place{}, false
	}
	if c.cfg.HighWater == HighWaterOffset {
		return Place{Key: m.Topic + "/" + strconv.Itoa(it.tracker.partition) + "\x00" + m.Key, Seq: it.offset, ID: m.ID}, true
	}
	seq, err := strconv.ParseInt(m.Headers[HeaderSeq], 10, 64)
	return Place{Key: m.Topic + "\x00" + m.Key, Seq: seq, ID: m.ID}, err == nil && seq > math.MinInt64
}

// call runs the handler; a panic becomes an error.
func (c *Consumer) call(ctx context.Context, tx *sql.Tx, m outbox.Message) (err error) {
	ctx, end := c.spanOf(ctx, m)
	defer func() { end(err) }()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("inbox: the handler panicked: %v", p)
		}
	}()
	return c.handler(ctx, tx, m)
}
