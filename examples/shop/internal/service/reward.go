package service

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/sdk"
)

const (
	dueSQL      = `SELECT id, customer, gift, cents FROM orders WHERE reward = 'due' LIMIT 64`
	rewardedSQL = `UPDATE orders SET reward = ? WHERE id = ? AND reward = 'due'`
)

// due is an order whose reward is.
type due struct {
	id, customer, gift string
	cents              int64
}

// rewards looks after confirmed orders that want a reward, until ctx ends.
// The table is its memory: what a crash leaves due is taken up again, under the
// same gid.
func (s *orderService) rewards(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.rewardSome(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "rewards: will try again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *orderService) rewardSome(ctx context.Context) error {
	waiting, err := s.due(ctx)
	if err != nil {
		return err
	}
	var g errgroup.Group // without a context: one that fails must not turn back the others
	g.SetLimit(16)
	for _, d := range waiting {
		g.Go(func() error { return s.rewardOne(ctx, d) })
	}
	return g.Wait()
}

// rewardOne is a TCC transaction: points at one service, a gift at another,
// both or neither. Until both are there nobody can use either.
func (s *orderService) rewardOne(ctx context.Context, d due) error {
	err := sdk.RunTCC(ctx, s.client, "reward", func(ctx context.Context, t *sdk.TCC) error {
		if _, err := sdk.Try(ctx, t, Points, Award{d.id, d.customer, d.cents / 100}); err != nil {
			return err
		}
		_, err := sdk.Try(ctx, t, Gift, Goods{d.id, d.gift, 1})
		return err
	}, &sdk.TCCConfig{GID: "reward-" + d.id, Labels: map[string]string{"customer": d.customer}})

	var rb *sdk.RolledBackError
	reward := "given"
	if errors.As(err, &rb) {
		reward, err = "refused", nil
	}
	if err != nil { // not known yet: it stays due
		return err
	}
	_, err = s.db.ExecContext(ctx, rewardedSQL, reward, d.id)
	return err
}

func (s *orderService) due(ctx context.Context) ([]due, error) {
	rows, err := s.db.QueryContext(ctx, dueSQL)
	if err != nil {
		return nil, err
	}
	return scanAll(rows, func(d *due) []any { return []any{&d.id, &d.customer, &d.gift, &d.cents} })
}

// scanAll reads rows to the end and closes them.
func scanAll[T any](rows *sql.Rows, fields func(*T) []any) ([]T, error) {
	defer rows.Close() // its error is that of Err
	var all []T
	for rows.Next() {
		var t T
		if err := rows.Scan(fields(&t)...); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}
