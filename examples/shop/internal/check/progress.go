package check

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
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
	err := with(ctx, filepath.Join(s.Dir, "order.db"), func(db *sql.DB) error {
		var dead int64
		return errors.Join(
			each(ctx, db, progressSQL, func(scan scanner) error { return scan(&p.Placed, &p.Ended, &p.Rewards) }),
			each(ctx, db, outboxSQL, func(scan scanner) error { return scan(&p.Outbox, &dead) }))
	})
	return p, err
}
