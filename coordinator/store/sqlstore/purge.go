package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

const (
	finishedBefore = `SELECT gid FROM amends_transactions t%s WHERE t.finished_at < ?
 ORDER BY t.finished_at, t.%s %s, t.gid LIMIT ?%s`
	stillFinished = `SELECT COUNT(*) FROM amends_transactions t%s WHERE t.finished_at < ? AND %s%s`

	// purgeChunk is how many transactions go in one database transaction:
	// commits wait no longer than one chunk takes.
	purgeChunk = 500
)

// Purge implements store.Store.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (purged int, err error) {
	for {
		want := max(0, min(limit-purged, purgeChunk))
		n, err := s.purgeSome(ctx, before, want)
		if err != nil {
			return purged, err
		}
		if purged += n; n < purgeChunk {
			return purged, nil
		}
	}
}

// purgeSome purges one chunk. What it chose is locked, and is only what has
// finished: nobody waits for it.
func (s *Store) purgeSome(ctx context.Context, before time.Time, limit int) (int, error) {
	var gids []any
	err := s.write(ctx, "purge", func(ctx context.Context, tx *sql.Tx) (err error) {
		if gone, err := s.purged(ctx, tx, before, gids); gone || err != nil {
			return err
		}
		if gids, err = queryGIDs(ctx, tx, s.d.finishedQuery(), before.UnixMicro(), limit); err != nil || len(gids) == 0 {
			return err
		}
		which := ` WHERE ` + in("gid", len(gids))
		for _, from := range []string{
			s.d.deleteFrom(`amends_events`, primaryKey),
			s.d.deleteFrom(`amends_labels`, labelsByGID),
			s.d.deleteFrom(`amends_transactions`, primaryKey),
		} {
			if _, err := tx.ExecContext(ctx, from+which, gids...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(gids), nil
}

// finishedQuery finds what finished before a time.
func (d *dialect) finishedQuery() string {
	falling, _ := d.directions()
	return fmt.Sprintf(finishedBefore, d.use(d.ended), d.newest, falling, d.lock)
}

// purged says whether an earlier run, whose end nobody heard of, has purged
// these transactions.
func (s *Store) purged(ctx context.Context, tx *sql.Tx, before time.Time, gids []any) (bool, error) {
	if len(gids) == 0 {
		return false, nil
	}
	query := fmt.Sprintf(stillFinished, s.d.use(primaryKey), in("t.gid", len(gids)), s.d.lock)
	var left int
	err := tx.QueryRowContext(ctx, query, append([]any{before.UnixMicro()}, gids...)...).Scan(&left)
	return left == 0, err
}

func queryGIDs(ctx context.Context, tx *sql.Tx, query string, args ...any) ([]any, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var gids []any
	for rows.Next() {
		var gid string
		if err := rows.Scan(&gid); err != nil {
			return nil, err
		}
		gids = append(gids, gid)
	}
	return gids, rows.Err()
}
