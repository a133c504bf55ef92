package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Waiting is a message that waits to be published.
type Waiting struct {
	Position Position
	Message  Message // without Body and Headers
	Size     int     // of the body, in bytes
}

// WaitingQuery says which waiting messages to list. The zero value is the first
// page.
type WaitingQuery struct {
	After Position // only what stands behind it: the last one of the page before
	Topic string   // only this topic; empty means all
	Key   string   // only this key; empty means all
	Limit int      // 0 means 100, at most MaxDeadLetters
}

// Waiting lists messages that wait, partition by partition, in the order of
// their rows; those of one key are in one partition.
func (op *Operator) Waiting(ctx context.Context, q WaitingQuery) ([]Waiting, error) {
	limit, err := pageSize(q.Limit)
	if err != nil {
		return nil, err
	}
	first, last := q.After.Partition, Partitions-1
	if q.Key != "" {
		m := Message{Key: q.Key}
		first, last = max(first, m.partition()), m.partition()
	}
	key := []byte(q.Key)
	var out []Waiting
	for part := first; part <= last && len(out) < limit; part++ {
		after := int64(0)
		if part == q.After.Partition {
			after = q.After.Row
		}
		args := []any{after, q.Topic, q.Topic, key, key, limit - len(out)}
		err := op.each(ctx, op.d.operate.part[part].waiting, args, func(scan scanner) error {
			w := Waiting{Position: Position{Partition: part}}
			var id, key, idem []byte
			var created int64
			if err := scan(&w.Position.Row, &id, &w.Message.Topic, &key, &w.Size, &idem, &created); err != nil {
				return err
			}
			w.Message.ID, w.Message.Key, w.Message.IdempotencyKey = string(id), string(key), string(idem)
			w.Message.CreatedAt = time.UnixMicro(created)
			out = append(out, w)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("outbox: list waiting messages: %w", err)
		}
	}
	return out, nil
}

// Blocked is a key of which the first message does not get through.
type Blocked struct {
	Position Position // of that message
	ID       string   // of that message
	Topic    string
	Key      string // empty: the message has none, and blocks nothing else
	Attempts int
	Error    string // of the last attempt, at most 4 KiB, visibly cut
	// Poison: it can never be published, and blocks its key by the policy
	// BlockKey until somebody acts. Otherwise it may still get through by itself.
	Poison  bool
	Rows    int64     // messages of the key that wait, this one among them
	Since   time.Time // by the database's clock
	RetryAt time.Time // the next attempt, by the database's clock
}

// Blocked lists blocked keys by position, from behind one; limit is as in
// WaitingQuery. A relay notes them within a second: poison at its first attempt,
// other messages after the third, and of each partition the first hundred.
func (op *Operator) Blocked(ctx context.Context, after Position, limit int) ([]Blocked, error) {
	limit, err := pageSize(limit)
	if err != nil {
		return nil, err
	}
	var out []Blocked
	for part := after.Partition; part < Partitions && len(out) < limit; part++ {
		row := int64(0)
		if part == after.Partition {
			row = after.Row
		}
		here, err := op.blockedIn(ctx, part, row, limit-len(out))
		if err == nil && len(here) > 0 {
			err = op.countBlocked(ctx, part, here)
		}
		if err != nil {
			return nil, fmt.Errorf("outbox: list blocked keys: %w", err)
		}
		out = append(out, here...)
	}
	return out, nil
}

// blockedIn lists those of one partition, whose message is still there.
func (op *Operator) blockedIn(ctx context.Context, part int, after int64, limit int) (out []Blocked, err error) {
	err = op.each(ctx, op.d.operate.part[part].blocked, []any{after, limit}, func(scan scanner) error {
		b := Blocked{Position: Position{Partition: part}, Rows: 1}
		var id, key, text []byte
		var poison int
		var since, retry int64
		if err := scan(&b.Position.Row, &id, &b.Topic, &key, &b.Attempts, &poison, &text, &since, &retry); err != nil {
			return err
		}
		b.ID, b.Key, b.Error, b.Poison = string(id), string(key), string(text), poison != 0
		b.Since, b.RetryAt = time.UnixMicro(since), time.UnixMicro(retry)
		out = append(out, b)
		return nil
	})
	return out, err
}

// countBlocked fills in how many messages wait of each key.
func (op *Operator) countBlocked(ctx context.Context, part int, blocked []Blocked) error {
	rows := map[string]int64{}
	err := op.each(ctx, op.d.operate.part[part].blockedRows, nil, func(scan scanner) error {
		var key []byte
		var n int64
		if err := scan(&key, &n); err != nil {
			return err
		}
		rows[string(key)] = n
		return nil
	})
	for i := range blocked {
		if b := &blocked[i]; b.Key != "" {
			b.Rows = max(1, rows[b.Key])
		}
	}
	return err
}

// DeadLetters lists dead letters by number, oldest first.
func (op *Operator) DeadLetters(ctx context.Context, q DeadQuery) ([]Dead, error) {
	return DeadLetters(ctx, op.db, op.d, q)
}

// DeadLetter returns one dead letter whole, or ErrNoDeadLetter.
func (op *Operator) DeadLetter(ctx context.Context, number int64) (Dead, error) {
	dl, err := scanDead(op.db.QueryRowContext(ctx, op.d.operate.deadGet, number))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Dead{}, fmt.Errorf("%w: number %d", ErrNoDeadLetter, number)
	case err != nil:
		return Dead{}, fmt.Errorf("outbox: get dead letter %d: %w", number, err)
	}
	return dl, nil
}

func pageSize(limit int) (int, error) {
	if limit < 0 || limit > MaxDeadLetters {
		return 0, fmt.Errorf("%w: field Limit is %d: use 1 to %d, or 0 for 100", ErrAct, limit, MaxDeadLetters)
	}
	if limit == 0 {
		limit = 100
	}
	return limit, nil
}
