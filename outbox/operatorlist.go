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

// Waiting lists messages that wait, partition by partition: first those aside,
// then the others, each in the order of their rows, and so those of one key. A key
// is in one partition, and if it has messages of Config.Express topics also in the
// last one.
func (op *Operator) Waiting(ctx context.Context, q WaitingQuery) ([]Waiting, error) {
	limit, err := pageSize(q.Limit)
	if err != nil {
		return nil, err
	}
	var out []Waiting
	for part := q.After.Partition; part < Partitions; part++ {
		m := Message{Key: q.Key}
		if q.Key != "" && part != m.partition() && part != express {
			continue
		}
		for _, aside := range []bool{true, false} {
			after, ok := q.After.within(part, aside)
			if !ok || len(out) == limit {
				continue
			}
			here, err := op.waitingIn(ctx, Position{Partition: part, Row: after, Aside: aside}, &q, limit-len(out))
			if err != nil {
				return nil, fmt.Errorf("outbox: list waiting messages (was outbox.Migrate run?): %w", err)
			}
			out = append(out, here...)
		}
	}
	return out, nil
}

// waitingIn lists the messages of one table, behind a position.
func (op *Operator) waitingIn(ctx context.Context, after Position, q *WaitingQuery, limit int) (out []Waiting, err error) {
	key := []byte(q.Key)
	query, args := op.d.operate.part[after.Partition].waiting, []any{after.Row, q.Topic, q.Topic, key, key, limit}
	if after.Aside {
		query, args = op.d.aside.waiting, append([]any{after.Partition}, args...)
	}
	err = op.each(ctx, query, args, func(scan scanner) error {
		w := Waiting{Position: after}
		var id, key, idem []byte
		var created, notBefore int64
		dest := []any{&w.Position.Row, &id, &w.Message.Topic, &key, &w.Size, &idem, &created}
		if after.Aside {
			dest = append(dest, &notBefore)
		}
		if err := scan(dest...); err != nil {
			return err
		}
		w.Message.ID, w.Message.Key, w.Message.IdempotencyKey = string(id), string(key), string(idem)
		w.Message.CreatedAt = time.UnixMicro(created)
		if notBefore != 0 {
			w.Message.NotBefore = time.UnixMicro(notBefore)
		}
		out = append(out, w)
		return nil
	})
	return out, err
}

// Blocked is a key of which the first message does not get through.
type Blocked struct {
	Position Position // of that message
	ID       string   // of that message
	Topic    string
	Key      string // empty: the message has none, and blocks nothing else
	Attempts int
	Error    string // of the last attempt, at most 4 KiB, visibly cut
	// Poison: it can never be published, and blocks or parks its key, by the policy
	// BlockKey or ParkKey, until somebody acts. Otherwise it may still get through
	// by itself.
	Poison  bool
	Rows    int64     // messages of the key that wait, this one among them
	Since   time.Time // by the database's clock; of a message aside, its last attempt
	RetryAt time.Time // the next attempt, by the database's clock; zero: it is parked
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
	for part := after.Partition; part < Partitions; part++ {
		var here []Blocked
		for _, aside := range []bool{true, false} {
			row, ok := after.within(part, aside)
			if n := limit - len(out) - len(here); ok && n > 0 {
				found, err := op.blockedIn(ctx, Position{Partition: part, Row: row, Aside: aside}, n)
				if err != nil {
					return nil, fmt.Errorf("outbox: list blocked keys (was outbox.Migrate run?): %w", err)
				}
				here = append(here, found...)
			}
		}
		if err := op.countBlocked(ctx, part, here); err != nil {
			return nil, fmt.Errorf("outbox: list blocked keys: %w", err)
		}
		out = append(out, here...)
	}
	return out, nil
}

// blockedIn lists those of one table, whose message is still there, behind a
// position.
func (op *Operator) blockedIn(ctx context.Context, after Position, limit int) (out []Blocked, err error) {
	query, args := op.d.operate.part[after.Partition].blocked, []any{after.Row, limit}
	if after.Aside {
		query, args = op.d.aside.blocked, append([]any{after.Partition}, args...)
	}
	err = op.each(ctx, query, args, func(scan scanner) error {
		b := Blocked{Position: after, Rows: 1}
		var id, key, text []byte
		var poison int
		var since, retry int64
		if err := scan(&b.Position.Row, &id, &b.Topic, &key, &b.Attempts, &poison, &text, &since, &retry); err != nil {
			return err
		}
		b.ID, b.Key, b.Error, b.Poison = string(id), string(key), string(text), poison != 0
		b.Since = time.UnixMicro(since)
		if retry != parked {
			b.RetryAt = time.UnixMicro(retry)
		}
		out = append(out, b)
		return nil
	})
	return out, err
}

// countBlocked fills in how many messages wait of each key.
func (op *Operator) countBlocked(ctx context.Context, part int, blocked []Blocked) error {
	if len(blocked) == 0 {
		return nil
	}
	var keys []any
	for i := range blocked {
		keys = append(keys, []byte(blocked[i].Key))
	}
	rows := map[string]int64{}
	count := func(scan scanner) error {
		var key []byte
		var n int64
		err := scan(&key, &n)
		rows[string(key)] += n
		return err
	}
	err := op.each(ctx, withIn(op.d.operate.part[part].ofKeys, len(keys)), keys, count)
	if err == nil {
		err = op.each(ctx, withIn(op.d.aside.ofKeys, len(keys)), append([]any{part}, keys...), count)
	}
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
	query, id, parked := op.d.operate.deadGet, number, number > parkedNumbers
	if parked {
		query, id = op.d.aside.parkedGet, number-parkedNumbers
	}
	dl, err := scanDead(op.db.QueryRowContext(ctx, query, id).Scan, parked)
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
