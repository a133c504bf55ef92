package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// errLost says that another relay owns the partition now.
var errLost = errors.New("outbox: lost the lease of a partition")

// lease is the ownership of one partition. The database's clock decides who may
// take it; until is when it ends by our own clock, counted from before the
// request that took it, and so never later than the database's.
type lease struct {
	d      *Dialect
	part   int
	length time.Duration
	epoch  int64
	until  time.Time
}

// left is how long the lease lasts. It looks at both clocks: the monotonic one
// does not see the machine sleep, the wall clock can be set back.
func (l *lease) left() time.Duration {
	now := time.Now()
	return min(l.until.Sub(now), l.until.Round(0).Sub(now.Round(0)))
}

// acquire takes the lease if it is free. It only reads as long as it is not.
func (l *lease) acquire(ctx context.Context, db *sql.DB, owner string) (bool, error) {
	var held string
	var epoch int64
	var free bool
	if err := db.QueryRowContext(ctx, l.d.owner.peek, l.part).Scan(&held, &epoch, &free); err != nil {
		return false, fmt.Errorf("outbox: read the lease of partition %d (was outbox.Migrate run?): %w", l.part, err)
	}
	if !free {
		return false, nil
	}
	// Not cut short by the end of ctx: a lease that was taken, and whose taker does
	// not know it, nobody gives back.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	asked := time.Now()
	n, err := execCount(ctx, db, l.d.owner.acquire, owner, micros(l.length), l.part, epoch)
	if err != nil {
		return false, fmt.Errorf("outbox: take the lease of partition %d: %w", l.part, err)
	}
	if n == 1 {
		l.epoch, l.until = epoch+1, asked.Add(l.length)
	}
	return n == 1, nil
}

// renew prolongs the lease, in a transaction or alone, and fails with errLost
// when the epoch has changed. It answers the new end, which holds after commit.
func (l *lease) renew(ctx context.Context, q querier) (time.Time, error) {
	asked := time.Now()
	n, err := execCount(ctx, q, l.d.owner.renew, micros(l.length), l.part, l.epoch)
	if err != nil {
		return time.Time{}, fmt.Errorf("outbox: renew the lease of partition %d: %w", l.part, err)
	}
	if n == 0 {
		return time.Time{}, errLost
	}
	return asked.Add(l.length), nil
}

// ensure renews the lease when less than half of it is left.
func (l *lease) ensure(ctx context.Context, db *sql.DB) error {
	if l.left() > l.length/2 {
		return nil
	}
	until, err := l.renew(ctx, db)
	if err == nil {
		l.until = until
	}
	return err
}

// release gives the lease back, so that a successor need not wait for its end.
func (l *lease) release(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, l.d.owner.release, l.part, l.epoch)
	return err
}
