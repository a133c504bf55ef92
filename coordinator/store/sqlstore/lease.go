package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	countShards  = `SELECT COUNT(*) FROM amends_leases`
	freeLeases   = `SELECT shard, epoch FROM amends_leases WHERE owner = '' OR expires_at <= %s ORDER BY shard LIMIT ?%s`
	takeLeases   = `UPDATE amends_leases SET owner = ?, epoch = epoch + 1, expires_at = %s + ? WHERE %s`
	renewLeases  = `UPDATE amends_leases SET expires_at = %s + ? WHERE owner = ?`
	heldLeases   = `SELECT shard, epoch FROM amends_leases WHERE owner = ? ORDER BY shard`
	freeOwned    = `UPDATE amends_leases SET owner = '', expires_at = 0 WHERE owner = ?`
	freeAll      = `UPDATE amends_leases SET owner = '', expires_at = 0 WHERE owner <> ''`
	countMatches = `SELECT COUNT(*) FROM amends_leases WHERE (shard, epoch) IN `
	allEpochs    = `SELECT shard, epoch FROM amends_leases`
)

// Shards implements store.Store.
func (s *Store) Shards(ctx context.Context) (n int, err error) {
	err = s.read(ctx, "shards", func(db *sql.DB) error {
		return db.QueryRowContext(ctx, countShards).Scan(&n)
	})
	return n, err
}

// Acquire implements store.Store.
func (s *Store) Acquire(ctx context.Context, owner string, ttl time.Duration, limit int) ([]store.Lease, error) {
	if owner == "" {
		return nil, errors.New("sqlstore: acquire: owner is empty: give the coordinator's name")
	}
	var taken []store.Lease
	err := s.write(ctx, "acquire", func(ctx context.Context, tx *sql.Tx) (err error) {
		taken, err = queryLeases(ctx, tx, fmt.Sprintf(freeLeases, s.d.now, s.d.lockFree), max(limit, 0))
		if err != nil || len(taken) == 0 {
			return err
		}
		args := []any{owner, ttl.Microseconds()}
		for i := range taken {
			taken[i].Epoch++
			args = append(args, taken[i].Shard)
		}
		_, err = tx.ExecContext(ctx, fmt.Sprintf(takeLeases, s.d.now, in("shard", len(taken))), args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return taken, nil
}

// Renew implements store.Store.
func (s *Store) Renew(ctx context.Context, owner string, ttl time.Duration) ([]store.Lease, error) {
	if owner == "" {
		return nil, errors.New("sqlstore: renew: owner is empty: give the coordinator's name")
	}
	var held []store.Lease
	err := s.write(ctx, "renew", func(ctx context.Context, tx *sql.Tx) (err error) {
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(renewLeases, s.d.now), ttl.Microseconds(), owner); err != nil {
			return err
		}
		held, err = queryLeases(ctx, tx, heldLeases, owner)
		return err
	})
	if err != nil {
		return nil, err
	}
	return held, nil
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, owner string) error {
	return s.write(ctx, "release", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, freeOwned, owner)
		return err
	})
}

func queryLeases(ctx context.Context, tx *sql.Tx, query string, args ...any) ([]store.Lease, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var leases []store.Lease
	for rows.Next() {
		var l store.Lease
		if err := rows.Scan(&l.Shard, &l.Epoch); err != nil {
			return nil, err
		}
		leases = append(leases, l)
	}
	return leases, rows.Err()
}

// newLeaseCheck counts the leases that are what they should be. Repeating a
// lease changes nothing, so any number of them is filled up to a prepared one.
func newLeaseCheck(d *dialect) *multi {
	before, after, _ := strings.Cut(d.pairs, "%s")
	return newMulti(d, countMatches+before, after+d.lock, 2)
}

// checkLeases returns a *store.ConflictError unless every lease has its epoch,
// and keeps it so until the transaction ends.
func (s *Store) checkLeases(ctx context.Context, tx *sql.Tx, leases []store.Lease) error {
	matching, err := s.leases.count(ctx, tx, leases)
	if err != nil || matching == len(leases) {
		return err
	}
	now, err := queryLeases(ctx, tx, allEpochs)
	if err != nil {
		return err
	}
	epochs := make(map[int]int64, len(now))
	for _, l := range now {
		epochs[l.Shard] = l.Epoch
	}
	var lost []int
	for _, l := range leases {
		if epoch, found := epochs[l.Shard]; !found || epoch != l.Epoch {
			lost = append(lost, l.Shard)
		}
	}
	slices.Sort(lost)
	return &store.ConflictError{Shards: lost}
}

// count runs a SELECT COUNT(*) over pairs, in as many pieces as it takes.
func (m *multi) count(ctx context.Context, tx *sql.Tx, leases []store.Lease) (total int, err error) {
	for len(leases) > 0 {
		size := m.fill(len(leases))
		args := make([]any, 0, 2*size)
		for i := range size {
			l := leases[min(i, len(leases)-1)]
			args = append(args, l.Shard, l.Epoch)
		}
		var row *sql.Row
		if stmt := m.prepared[size]; stmt != nil {
			row = tx.StmtContext(ctx, stmt).QueryRowContext(ctx, args...)
		} else {
			row = tx.QueryRowContext(ctx, m.text(size), args...)
		}
		var n int
		if err := row.Scan(&n); err != nil {
			return 0, err
		}
		total += n
		leases = leases[min(size, len(leases)):]
	}
	return total, nil
}

// fill returns the smallest prepared size that holds n rows, or the largest.
func (m *multi) fill(n int) int {
	if len(m.counts) == 0 {
		return min(n, m.max)
	}
	for _, count := range slices.Backward(m.counts) {
		if count >= n {
			return count
		}
	}
	return m.counts[0]
}
