package check

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Progress is how far the orders have come, while the shop works.
type Progress struct {
	Placed, Ended int   // orders
	Rewards       int   // that are due
	Outbox        int64 // messages that wait
}

const progressSQL = `SELECT count(*), coalesce(sum(state IN ('confirmed', 'rejected')), 0), coalesce(sum(reward = 'due'), 0)
FROM orders`

// Look reads the order service's progress from its database.
func Look(ctx context.Context, s Shop) (Progress, error) {
	var p Progress
	err := s.Order.with(ctx, func(db *sql.DB) error {
		var dead int64
		return errors.Join(
			each(ctx, db, progressSQL, func(scan scanner) error { return scan(&p.Placed, &p.Ended, &p.Rewards) }),
			each(ctx, db, outboxSQL, func(scan scanner) error { return scan(&p.Outbox, &dead) }))
	})
	return p, err
}

const (
	unfinishedSQL = `SELECT count(*) FROM amends_transactions WHERE finished_at IS NULL`
	underWaySQL   = `SELECT count(*), coalesce(sum(finished_at IS NOT NULL), 0) FROM amends_transactions
WHERE created_at <= ? AND (finished_at IS NULL OR finished_at > ?)`
	wholeSQL = `SELECT count(*) FROM amends_transactions WHERE kind = 'saga' AND created_at > ? AND finished_at IS NOT NULL`
)

// Unfinished counts the transactions that have not ended, as the coordinator's
// database has them at this moment, whether it runs or not.
func Unfinished(ctx context.Context, s Shop) (n int, err error) {
	err = s.Coordinator.with(ctx, func(db *sql.DB) error { return db.QueryRowContext(ctx, unfinishedSQL).Scan(&n) })
	return n, err
}

// UnderWay counts the transactions that had begun at a moment, and had not
// ended; and how many of them have ended since.
func UnderWay(ctx context.Context, s Shop, at time.Time) (n, ended int, err error) {
	err = s.Coordinator.with(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, underWaySQL, at.UnixMicro(), at.UnixMicro()).Scan(&n, &ended)
	})
	return n, ended, err
}

// Whole counts the sagas that began after a moment and have ended: for such a
// one order service, relay, coordinator and participants all work.
func Whole(ctx context.Context, s Shop, since time.Time) (n int, err error) {
	err = s.Coordinator.with(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, wholeSQL, since.UnixMicro()).Scan(&n)
	})
	return n, err
}
