package outbox

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	paceSaved = time.Second      // so long a relay that did not use its share saves it up
	paceEvery = time.Second      // how often a partition sees whether it keeps up
	paceCalm  = 10 * paceEvery   // so long all have to keep up before the share goes down again
	paceNoise = time.Millisecond // shorter rests are owed until they are longer
)

// pace spreads the work on backlogs over time, for all partitions of a relay: the
// time for which they keep the database busy is a share of all time. A database that
// gets slower, because others use it, so has fewer messages of ours to deal with.
//
// A relay that would fall behind what is written takes a larger share, up to all:
// otherwise the backlog would never end, and a full outbox holds its writers up for
// longer than any rest of ours spares them.
type pace struct {
	least float64 // RelayConfig.Share

	mu    sync.Mutex
	share float64
	quick time.Time // when somebody fell behind
	paid  time.Time // until then what was done is paid for
}

// unbounded reports whether there is nothing to wait for.
func (c *pace) unbounded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.share >= 1
}

// rest is how long to wait after the database was busy for some time.
func (c *pace) rest(now time.Time, busy, most time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	saved := now.Add(-paceSaved)
	if c.share >= 1 {
		c.paid = saved
		return 0
	}
	if c.paid.Before(saved) {
		c.paid = saved
	}
	if c.paid = c.paid.Add(time.Duration(float64(busy) / c.share)); c.paid.After(now.Add(most)) {
		c.paid = now.Add(most)
	}
	if d := c.paid.Sub(now); d >= paceNoise {
		return d
	}
	return 0
}

// adapt takes note of what came and what left in about a second.
func (c *pace) adapt(now time.Time, came, left int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case came > left-left/10:
		c.quick, c.share = now, min(2*c.share, 1)
	case now.Sub(c.quick) > paceCalm:
		c.share = max(c.share-c.share/10, c.least)
	}
}

// workload is what a partition did in a step, and in the steps before.
type workload struct {
	busy time.Duration // of the database, in this step
	rows int           // of a whole page, in this step: then there may be more

	since time.Time // when left began, and high was looked at
	left  int64
	high  int64
}

// rest waits after a whole page, such that the relay keeps to its share.
func (p *partition) rest(ctx context.Context) error {
	e := &p.load
	busy, rows := e.busy, e.rows
	e.busy, e.rows = 0, 0
	if rows == 0 {
		e.since = time.Time{}
		return nil
	}
	if p.r.pace.least >= 1 {
		return nil
	}
	if err := p.compare(ctx, rows); err != nil {
		return err
	}
	if d := p.r.pace.rest(time.Now(), busy, p.untilDue(p.r.cfg.PollMax)); d > 0 {
		pause(ctx, d)
	}
	return nil
}

// compare compares what left the table with what came, by its ids.
func (p *partition) compare(ctx context.Context, rows int) error {
	e, now := &p.load, time.Now()
	e.left += int64(rows)
	if !e.since.IsZero() && now.Sub(e.since) < paceEvery {
		return nil
	}
	var high int64
	if err := p.r.db.QueryRowContext(ctx, p.sql.highest).Scan(&high); err != nil {
		return fmt.Errorf("outbox: see what was written: %w", err)
	}
	if !e.since.IsZero() {
		p.r.pace.adapt(now, high-e.high, e.left)
	}
	e.since, e.left, e.high = now, 0, high
	return nil
}
