package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"sync"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	// insertAtOnce writes a transaction as insertTransactions does, if its
	// shard's lease has the epoch and the turn. It holds the lease's row until it
	// is durable, as a commit of several statements does.
	insertAtOnce = intoTransactions + `SELECT %s FROM amends_leases t%s WHERE t.shard = ? AND t.epoch = ? AND t.turn = ?%s%s`
	// theRecord is what insertAtOnce selects, in the order of bindRecord. A value
	// that is selected has no column to take its type from; MySQL 8 would make it
	// text in the connection's character set.
	theRecord = asBytes + `, ` + asInt + `, ` + asBytes + `, ` + asBytes + `, ` + asBytes + `, ` + asInt + `,
 ` + asInt + `, ` + asInt + `, ` + asBytes + `, ` + asInt + `, ` + asBytes + `,
 ` + asInt + `, ` + asInt + `, ` + asInt + `, ` + asInt + `, ` + asInt + `,
 ` + asInt + `, ` + asBytes + `, ` + asBytes + `, ` + asBytes + `, ` + asBytes + `, ` + asBytes + `, ` + asBytes
	asBytes = `CAST(? AS BINARY)`
	asInt   = `CAST(? AS SIGNED)`
	// nextTurns begins other turns of leases whose rows are locked.
	nextTurns = `UPDATE amends_leases SET turn = turn + 1 WHERE %s`

	// maxOnce bounds the values of a commit of one statement, in bytes.
	maxOnce = 64 << 10
)

// epoch is what the database has of a shard's lease.
type epoch struct {
	number int64
	turn   int64
}

// turns are the turns of leases in which a commit of one statement takes effect.
// Such a statement may be given up before the server has read it, when it holds
// no lock that anybody could wait for. So its turn is forgotten, the next commit
// under its lease takes another one, and it will find that its own has passed.
type turns struct {
	mu    sync.Mutex
	known map[int]epoch // by shard
}

func (t *turns) of(l store.Lease) (turn int64, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, known := t.known[l.Shard]
	return e.turn, known && e.number == l.Epoch
}

func (t *turns) forget(leases ...store.Lease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range leases {
		delete(t.known, l.Shard)
	}
}

func (t *turns) learn(taken map[int]epoch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for shard, e := range taken {
		t.known[shard] = e
	}
}

// commitAtOnce commits a batch with one statement, if it is a single row and the
// turn of its lease is known. If it returns false, nobody knows what became of
// it: the way of all other batches finds out, and changes nothing that is done.
func (s *Store) commitAtOnce(ctx context.Context, b *store.Batch, r *rows) bool {
	if !s.d.atOnce || len(b.Writes) != 1 || len(b.Leases) != 1 || len(r.events)+len(r.labels)+len(r.messages) > 0 {
		return false
	}
	lease := b.Leases[0]
	turn, known := s.turns.of(lease)
	args := bindRecord(make([]any, 0, transactionVars+3), &b.Writes[0].Record, r.json[0], r.trails[0])
	if !known || textSize(args) > maxOnce {
		return false
	}
	end, err := s.begin(ctx, "commit")
	if err != nil {
		return false
	}
	defer end()
	res, err := s.once.ExecContext(ctx, append(args, lease.Shard, lease.Epoch, turn)...)
	if err == nil {
		var n int64
		if n, err = res.RowsAffected(); err == nil {
			return n > 0 // else the lease is another, or the row is there
		}
	}
	s.turns.forget(lease)
	s.log.LogAttrs(ctx, slog.LevelWarn, "sqlstore: repeating a call", slog.String("call", "commit"), slog.Any("err", err))
	return false
}

// takeTurns begins other turns of those leases, which are locked, whose turn is
// not known, and returns them.
func (s *Store) takeTurns(ctx context.Context, tx *sql.Tx, leases []store.Lease, held map[int]epoch) (map[int]epoch, error) {
	if !s.d.atOnce {
		return nil, nil
	}
	var unknown []store.Lease
	taken := make(map[int]epoch)
	for _, l := range leases {
		if turn, known := s.turns.of(l); !known || turn != held[l.Shard].turn {
			unknown = append(unknown, l)
			taken[l.Shard] = epoch{l.Epoch, held[l.Shard].turn + 1}
		}
	}
	if len(unknown) == 0 {
		return nil, nil
	}
	which, shards := inShards("shard", unknown)
	_, err := tx.ExecContext(ctx, fmt.Sprintf(nextTurns, which), shards...)
	return taken, err
}
