package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	countShards = `SELECT COUNT(*) FROM amends_leases`
	isFree      = `(owner = '' OR expires_at <= %s)`
	freeLeases  = `SELECT shard, epoch FROM amends_leases WHERE ` + isFree + ` ORDER BY shard LIMIT ?`
	lockFree    = `SELECT t.shard, t.epoch FROM amends_leases t%s WHERE ` + isFree + ` AND %s ORDER BY t.shard%s`
	lockHeld    = `SELECT t.shard, t.epoch FROM amends_leases t%s WHERE owner = ? AND %s ORDER BY t.shard%s`
	takeLeases  = `UPDATE amends_leases SET owner = ?, epoch = epoch + 1, expires_at = %s + ? WHERE %s`
	renewLeases = `UPDATE amends_leases SET expires_at = %s + ? WHERE owner = ?`
	heldLeases  = `SELECT shard, epoch FROM amends_leases WHERE owner = ? ORDER BY shard`
	freeOwned   = `UPDATE amends_leases SET owner = '', expires_at = 0 WHERE owner = ?`
	freeAll     = `UPDATE amends_leases SET owner = '', expires_at = 0 WHERE owner <> ''`
	epochsOf    = `SELECT t.shard, t.epoch, t.turn FROM amends_leases t%s WHERE t.shard IN (`
	allEpochs   = `SELECT shard, epoch FROM amends_leases`
	allLeases   = `SELECT shard, epoch, owner, expires_at FROM amends_leases ORDER BY shard`

	// maxAcquire is how many shards are taken in one transaction at most.
	maxAcquire = 4096
)

// Shards implements store.Store.
func (s *Store) Shards(ctx context.Context) (n int, err error) {
	err = s.read(ctx, "shards", func(db *sql.DB) error {
		return db.QueryRowContext(ctx, countShards).Scan(&n)
	})
	return n, err
}

// Leases implements store.Store.
func (s *Store) Leases(ctx context.Context) (all []store.Holding, err error) {
	err = s.read(ctx, "leases", func(db *sql.DB) error {
		all = nil
		rows, err := db.QueryContext(ctx, allLeases)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var h store.Holding
			var expires int64
			if err := rows.Scan(&h.Shard, &h.Epoch, &h.Owner, &expires); err != nil {
				return err
			}
			if h.Owner != "" {
				h.ExpiresAt = time.UnixMicro(expires).UTC()
			}
			all = append(all, h)
		}
		return rows.Err()
	})
	return all, err
}

// Acquire implements store.Store.
func (s *Store) Acquire(ctx context.Context, owner string, ttl time.Duration, limit int) ([]store.Lease, error) {
	if owner == "" {
		return nil, errors.New("sqlstore: acquire: owner is empty: give the coordinator's name")
	}
	var taken []store.Lease
	for {
		a := acquisition{owner: owner, ttl: ttl, limit: max(min(limit-len(taken), maxAcquire), 0)}
		err := s.write(ctx, "acquire", func(ctx context.Context, tx *sql.Tx) error { return s.take(ctx, tx, &a) })
		if err != nil {
			return nil, err
		}
		taken = append(taken, a.taken...)
		if len(a.taken) < a.limit || len(taken) >= limit {
			break
		}
	}
	// Shards that came free meanwhile may stand before those of a round before.
	slices.SortFunc(taken, byShard)
	return taken, nil
}

func byShard(a, b store.Lease) int { return cmp.Compare(a.Shard, b.Shard) }

// acquisition is one call of Acquire.
type acquisition struct {
	owner string
	ttl   time.Duration
	limit int
	taken []store.Lease // by the last run, which may have been committed unheard
}

// take chooses without locks, so that it waits for nobody's commits, then
// locks what it chose and takes what is still free.
func (s *Store) take(ctx context.Context, tx *sql.Tx, a *acquisition) error {
	if done, err := s.took(ctx, tx, a); done || err != nil {
		return err
	}
	for {
		free, err := queryLeases(ctx, tx, fmt.Sprintf(freeLeases, s.d.now), a.limit)
		if a.taken = nil; err != nil || len(free) == 0 {
			return err
		}
		which, shards := inShards("t.shard", free)
		query := fmt.Sprintf(lockFree, s.d.use(primaryKey), s.d.now, which, s.d.lock)
		if a.taken, err = queryLeases(ctx, tx, query, shards...); err != nil {
			return err
		}
		if len(a.taken) > 0 {
			break
		} // else others took them all in between: see what they left
	}
	which, shards := inShards("shard", a.taken)
	for i := range a.taken {
		a.taken[i].Epoch++
	}
	s.forgetEpochs()
	query := fmt.Sprintf(takeLeases, s.d.now, which)
	_, err := tx.ExecContext(ctx, query, append([]any{a.owner, a.ttl.Microseconds()}, shards...)...)
	return err
}

// took says whether an earlier run, whose end nobody heard of, took the leases:
// then they have its owner and its epochs.
func (s *Store) took(ctx context.Context, tx *sql.Tx, a *acquisition) (bool, error) {
	if len(a.taken) == 0 {
		return false, nil
	}
	which, shards := inShards("t.shard", a.taken)
	query := fmt.Sprintf(lockHeld, s.d.use(primaryKey), which, s.d.lock)
	held, err := queryLeases(ctx, tx, query, append([]any{a.owner}, shards...)...)
	return slices.Equal(held, a.taken), err
}

// inShards returns a condition that column is one of the leases' shards.
func inShards(column string, leases []store.Lease) (string, []any) {
	shards := make([]any, len(leases))
	for i, l := range leases {
		shards[i] = l.Shard
	}
	return in(column, len(leases)), shards
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

// newLeaseCheck reads the epochs of shards, and keeps them as they are until the
// transaction ends. To name a shard twice changes nothing, so any number of them
// is filled up to a prepared one.
func newLeaseCheck(d *dialect) *multi {
	m := &multi{head: fmt.Sprintf(epochsOf, d.use(primaryKey)), row: `?`, between: `, `, tail: `)` + d.lock, vars: 1}
	return m.sized(d, d.maxLeases)
}

// checkLeases returns a *store.ConflictError unless every lease has its epoch,
// and keeps it so until the transaction ends.
func (s *Store) checkLeases(ctx context.Context, tx *sql.Tx, leases []store.Lease) (map[int]epoch, error) {
	// Everybody locks in the same order, and so nobody in a circle.
	leases = slices.SortedFunc(slices.Values(leases), byShard)
	epochs, err := s.epochs(ctx, tx, leases)
	if err != nil {
		return nil, err
	}
	var lost []int
	for _, l := range leases {
		if e, found := epochs[l.Shard]; !found || e.number != l.Epoch {
			lost = append(lost, l.Shard)
		}
	}
	if lost == nil {
		return epochs, nil
	}
	return nil, &store.ConflictError{Shards: lost}
}

// epochs returns the epochs of the leases' shards, and maybe of others. Where
// no other process changes them, they are read once: who changes one calls
// forgetEpochs, in a transaction beside which there is no other.
func (s *Store) epochs(ctx context.Context, tx *sql.Tx, leases []store.Lease) (map[int]epoch, error) {
	if s.d.exclusive {
		return s.allEpochs(ctx, tx)
	}
	epochs := make(map[int]epoch, len(leases))
	for len(leases) > 0 {
		size := s.leases.covering(len(leases))
		some := leases[:min(size, len(leases))]
		if err := s.leases.epochs(ctx, tx, some, size, epochs); err != nil {
			return nil, err
		}
		leases = leases[len(some):]
	}
	return epochs, nil
}

func (s *Store) allEpochs(ctx context.Context, tx *sql.Tx) (map[int]epoch, error) {
	if s.known != nil {
		return s.known, nil
	}
	all, err := queryLeases(ctx, tx, allEpochs)
	if err != nil {
		return nil, err
	}
	s.known = make(map[int]epoch, len(all))
	for _, l := range all {
		s.known[l.Shard] = epoch{number: l.Epoch}
	}
	return s.known, nil
}

// forgetEpochs is called in a transaction that is about to change epochs. What
// is rolled back is merely read again.
func (s *Store) forgetEpochs() {
	if s.d.exclusive {
		s.known = nil
	}
}

// epochs adds the epochs of the leases' shards, the last one asked for as often
// as it takes to ask for size of them.
func (m *multi) epochs(ctx context.Context, tx *sql.Tx, leases []store.Lease, size int, epochs map[int]epoch) error {
	shards := make([]any, size)
	for i := range shards {
		shards[i] = leases[min(i, len(leases)-1)].Shard
	}
	rows, err := tx.StmtContext(ctx, m.prepared[size]).QueryContext(ctx, shards...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var shard int
		var e epoch
		if err := rows.Scan(&shard, &e.number, &e.turn); err != nil {
			return err
		}
		epochs[shard] = e
	}
	return rows.Err()
}

// covering returns the smallest prepared size that holds n rows, or the largest.
func (m *multi) covering(n int) int {
	for _, count := range slices.Backward(m.counts) {
		if count >= n {
			return count
		}
	}
	return m.counts[0]
}
