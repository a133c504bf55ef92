package sqlstore

import (
	"context"
	"database/sql"
	"time"
)

const (
	finishedBefore = `SELECT gid FROM amends_transactions WHERE finished_at < ? ORDER BY finished_at, gid LIMIT ?`

	deleteEvents       = `DELETE FROM amends_events WHERE `
	deleteLabels       = `DELETE FROM amends_labels WHERE `
	deleteTransactions = `DELETE FROM amends_transactions WHERE `

	// purgeChunk is how many transactions go in one database transaction:
	// commits wait no longer than one chunk takes.
	purgeChunk = 500
)

// Purge implements store.Store.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (purged int, err error) {
	for {
		want := max(0, min(limit-purged, purgeChunk))
		var n int
		err := s.write(ctx, "purge", func(ctx context.Context, tx *sql.Tx) (err error) {
			n, err = purgeSome(ctx, tx, before, want)
			return err
		})
		if err != nil {
			return purged, err
		}
		if purged += n; n < purgeChunk {
			return purged, nil
		}
	}
}

func purgeSome(ctx context.Context, tx *sql.Tx, before time.Time, limit int) (int, error) {
	gids, err := queryGIDs(ctx, tx, finishedBefore, before.UnixMicro(), limit)
	if err != nil || len(gids) == 0 {
		return 0, err
	}
	which := in("gid", len(gids))
	for _, table := range []string{deleteEvents, deleteLabels, deleteTransactions} {
		if _, err := tx.ExecContext(ctx, table+which, gids...); err != nil {
			return 0, err
		}
	}
	return len(gids), nil
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
