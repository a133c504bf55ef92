package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	insertMember = `INSERT INTO amends_members (name, address, version, draining, started_at, expires_at)
 VALUES (?, ?, ?, ?, ?, %s + ?)%s`
	allMembers    = `SELECT name, address, version, draining, started_at, expires_at, %s FROM amends_members ORDER BY name`
	deleteMember  = `DELETE FROM amends_members WHERE name = ?`
	deleteMembers = `DELETE FROM amends_members`
	deleteGone    = deleteMember + ` AND expires_at = ?` // unless it is back

	insertSecret = `INSERT INTO amends_secret (id, secret) VALUES (1, ?)%s`
	readSecret   = `SELECT secret FROM amends_secret WHERE id = 1`

	lockGiven = `SELECT t.shard, t.epoch, t.owner FROM amends_leases t%s WHERE %s ORDER BY t.shard%s`

	// forgetAfter is how many times its ttl a member is kept that is gone.
	forgetAfter = 10
)

// Join implements store.Store. It locks no row but the member's own.
func (s *Store) Join(ctx context.Context, m store.Member, ttl time.Duration) ([]store.Member, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	announce, read := fmt.Sprintf(insertMember, s.d.now, s.d.keepMember), fmt.Sprintf(allMembers, s.d.now)
	var all []store.Member
	var now time.Time
	err := s.write(ctx, "join", func(ctx context.Context, tx *sql.Tx) (err error) {
		_, err = tx.ExecContext(ctx, announce, m.Name, m.Address, m.Version, m.Draining,
			m.StartedAt.UnixMicro(), ttl.Microseconds())
		if err == nil {
			all, now, err = queryMembers(ctx, tx, read)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var live []store.Member
	for _, o := range all {
		switch {
		case now.Before(o.ExpiresAt) || o.Name == m.Name:
			live = append(live, o)
		case o.ExpiresAt.Before(now.Add(-forgetAfter * ttl)):
			// In a transaction of its own: whoever held two rows could stand
			// in a circle with others.
			if err := s.remove(ctx, deleteGone, o.Name, o.ExpiresAt.UnixMicro()); err != nil {
				return nil, err
			}
		}
	}
	return live, nil
}

// queryMembers returns all that the store remembers, by name, with its time.
func queryMembers(ctx context.Context, tx *sql.Tx, query string) (all []store.Member, now time.Time, err error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, now, err
	}
	defer rows.Close()
	for rows.Next() {
		var m store.Member
		var started, expires, clock int64
		if err := rows.Scan(&m.Name, &m.Address, &m.Version, &m.Draining, &started, &expires, &clock); err != nil {
			return nil, now, err
		}
		m.StartedAt, m.ExpiresAt = time.UnixMicro(started).UTC(), time.UnixMicro(expires).UTC()
		now, all = time.UnixMicro(clock).UTC(), append(all, m)
	}
	return all, now, rows.Err()
}

// Leave implements store.Store.
func (s *Store) Leave(ctx context.Context, name string) error {
	return s.remove(ctx, deleteMember, name)
}

func (s *Store) remove(ctx context.Context, statement string, args ...any) error {
	return s.write(ctx, "leave", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
}

// Secret implements store.Store. Whoever comes first has made it.
func (s *Store) Secret(ctx context.Context) ([]byte, error) {
	fresh := make([]byte, store.SecretSize)
	_, _ = rand.Read(fresh) // never fails
	var secret []byte
	err := s.write(ctx, "secret", func(ctx context.Context, tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, readSecret).Scan(&secret)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if _, err := tx.ExecContext(ctx, fmt.Sprintf(insertSecret, s.d.elseKeep(`id`)), fresh); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, readSecret).Scan(&secret)
	})
	return secret, err
}

// Transfer implements store.Store.
func (s *Store) Transfer(ctx context.Context, leases []store.Lease, to string, ttl time.Duration) ([]store.Lease, error) {
	if to == "" {
		return nil, errors.New("sqlstore: transfer: the new owner is empty: give a coordinator's name")
	}
	leases = slices.SortedFunc(slices.Values(leases), byShard)
	var given []store.Lease
	for part := range slices.Chunk(leases, maxAcquire) {
		var done []store.Lease
		err := s.write(ctx, "transfer", func(ctx context.Context, tx *sql.Tx) (err error) {
			done, err = s.give(ctx, tx, part, to, ttl)
			return err
		})
		if err != nil {
			return nil, err
		}
		given = append(given, done...)
	}
	return given, nil
}

// give locks the shards, gives those away that are still held under the epochs,
// and returns them with those that were given before.
func (s *Store) give(ctx context.Context, tx *sql.Tx, leases []store.Lease, to string, ttl time.Duration) (
	given []store.Lease, err error,
) {
	which, shards := inShards("t.shard", leases)
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(lockGiven, s.d.use(primaryKey), which, s.d.lock), shards...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	epochs := make(map[int]int64, len(leases))
	for _, l := range leases {
		epochs[l.Shard] = l.Epoch
	}
	var now []store.Lease
	for rows.Next() {
		var l store.Lease
		var owner string
		if err := rows.Scan(&l.Shard, &l.Epoch, &owner); err != nil {
			return nil, err
		}
		switch held := epochs[l.Shard]; {
		case owner == to && l.Epoch == held+1:
			given = append(given, l)
		case owner != "" && l.Epoch == held:
			l.Epoch++
			given, now = append(given, l), append(now, l)
		}
	}
	if err := rows.Err(); err != nil || len(now) == 0 {
		return given, err
	}
	which, shards = inShards("shard", now)
	s.forgetEpochs()
	_, err = tx.ExecContext(ctx, fmt.Sprintf(takeLeases, s.d.now, which), append([]any{to, ttl.Microseconds()}, shards...)...)
	return given, err
}
