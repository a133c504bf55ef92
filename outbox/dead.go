package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// MaxDeadLetters is the most that DeadLetters answers at once.
const MaxDeadLetters = 1000

// ErrNoDeadLetter is returned for a dead letter that is not there, any more.
var ErrNoDeadLetter = errors.New("outbox: no such dead letter")

// Dead is a dead letter: a message that could never be published, or that is
// parked behind one. Those that are parked are listed behind the others, each key's
// in order. Of one that has not failed itself Attempts is 0, and FailedAt zero.
type Dead struct {
	Number   int64     // names it for Replay and Drop; that of a parked one is above 1e12
	Parked   bool      // it blocks its key, by the policy ParkKey, or is behind one that does
	Message  Message   // as it was written
	Size     int       // of the body, in bytes
	FailedAt time.Time // when it was moved here, by the database's clock
	Attempts int       // to publish it, as far as the last relay counted them
	Error    string    // of the last attempt, at most 4 KiB, visibly cut
}

// DeadQuery says which dead letters to list. The zero value is the first page.
type DeadQuery struct {
	After int64  // only numbers above: the last one of the page before
	Topic string // only this topic; empty means all
	Key   string // only this key; empty means all
	Limit int    // 0 means 100, at most MaxDeadLetters
	Brief bool   // without bodies: a thousand of them can weigh a gigabyte
}

// DeadLetters lists dead letters by number, oldest first.
func DeadLetters(ctx context.Context, db *sql.DB, d *Dialect, q DeadQuery) ([]Dead, error) {
	if q.Limit < 0 || q.Limit > MaxDeadLetters {
		return nil, fmt.Errorf("outbox: list dead letters: field Limit is %d: use 1 to %d", q.Limit, MaxDeadLetters)
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	var out []Dead
	for _, parked := range []bool{false, true} {
		query, after := d.dead.list, q.After
		if parked {
			query, after = d.aside.parkedList, max(0, q.After-parkedNumbers)
		}
		key := []byte(q.Key)
		args := []any{flag(q.Brief), after, q.Topic, q.Topic, key, key, q.Limit - len(out)}
		if len(out) == q.Limit || !parked && after > parkedNumbers {
			continue
		}
		err := eachRow(ctx, db, query, args, func(scan scanner) error {
			dl, err := scanDead(scan, parked)
			out = append(out, dl)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("outbox: list dead letters: %w", err)
		}
	}
	return out, nil
}

// flag is a bool as every driver takes it.
func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func scanDead(scan scanner, parked bool) (Dead, error) {
	var dl Dead
	var part int
	var created, failed int64
	var id, key, headers, idem, text []byte
	m := &dl.Message
	if err := scan(&dl.Number, &part, &id, &m.Topic, &key, &m.Body, &headers, &idem, &created, &failed,
		&dl.Attempts, &text, &dl.Size); err != nil {
		return Dead{}, err
	}
	m.ID, m.Key, m.IdempotencyKey = string(id), string(key), string(idem)
	m.CreatedAt, dl.Error = time.UnixMicro(created), string(text)
	if failed != 0 {
		dl.FailedAt = time.UnixMicro(failed)
	}
	if parked {
		dl.Number, dl.Parked = dl.Number+parkedNumbers, true
	}
	// Damaged headers can be why it is here: it is listed without them.
	_ = m.unpack(headers)
	return dl, nil
}

// Replay is Operator.Replay for programs: nobody's act is recorded. It moves dead
// letters back into the outbox: they are published after what is there already, in
// the order given, and parked ones in the order of their keys. All are moved or
// none; a number that is not there is ErrNoDeadLetter. Wake the outbox afterwards.
func Replay(ctx context.Context, db *sql.DB, d *Dialect, numbers ...int64) error {
	letters, aside := splitParked(numbers)
	parts := make([]int, len(letters))
	for i, n := range letters {
		// Before the transaction, which begins with a write: see SQLiteDSN.
		err := db.QueryRowContext(ctx, d.dead.part, n).Scan(&parts[i])
		if errors.Is(err, sql.ErrNoRows) || err == nil && (parts[i] < 0 || parts[i] >= Partitions) {
			return fmt.Errorf("%w: number %d", ErrNoDeadLetter, n)
		}
		if err != nil {
			return fmt.Errorf("outbox: replay dead letter %d: %w", n, err)
		}
	}
	return InTx(ctx, db, d.txOptions(), func(tx *sql.Tx) error {
		for i, n := range letters {
			if _, err := tx.ExecContext(ctx, d.part[parts[i]].revive, n); err != nil {
				return fmt.Errorf("outbox: replay dead letter %d: %w", n, err)
			}
			if err := dropOne(ctx, tx, d, n); err != nil {
				return err
			}
		}
		return onParked(ctx, tx, d, aside, true, &Act{}, replayParked)
	})
}

// Drop is Operator.Discard for programs: nobody's act is recorded. It deletes
// dead letters for good. All are deleted or none; a number that is
// not there is ErrNoDeadLetter.
func Drop(ctx context.Context, db *sql.DB, d *Dialect, numbers ...int64) error {
	letters, aside := splitParked(numbers)
	return InTx(ctx, db, d.txOptions(), func(tx *sql.Tx) error {
		for _, n := range letters {
			if err := dropOne(ctx, tx, d, n); err != nil {
				return err
			}
		}
		return onParked(ctx, tx, d, aside, true, &Act{}, discardParked)
	})
}

// dropOne fails unless it deleted the row, which makes its transaction the only
// one that moves or drops it.
func dropOne(ctx context.Context, tx *sql.Tx, d *Dialect, number int64) error {
	n, err := execCount(ctx, tx, d.dead.remove, number)
	if err != nil {
		return fmt.Errorf("outbox: delete dead letter %d: %w", number, err)
	}
	if n == 0 {
		return fmt.Errorf("%w: number %d", ErrNoDeadLetter, number)
	}
	return nil
}

// Backlog is how full an outbox is.
type Backlog struct {
	Rows    int64         // messages that wait to be published
	Oldest  time.Duration // age of the oldest of them, 0 when there are none; of those aside, since it was due
	Delayed int64         // of Rows, those that are aside: until their NotBefore, or behind one of their key
	Dead    int64         // dead letters
	Parked  int64         // of Dead, those that are parked, by the policy ParkKey
}

// Depth counts the rows of the outbox, exactly: its cost grows with them.
func Depth(ctx context.Context, db *sql.DB, d *Dialect) (Backlog, error) {
	var b Backlog
	for p := range d.part {
		var rows, age int64
		err := db.QueryRowContext(ctx, d.part[p].count).Scan(&rows)
		if err == nil {
			err = db.QueryRowContext(ctx, d.part[p].oldest).Scan(&age)
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return Backlog{}, fmt.Errorf("outbox: depth: %w", err)
		}
		b.Rows, b.Oldest = b.Rows+rows, max(b.Oldest, time.Duration(age)*time.Microsecond)
	}
	if err := b.addOthers(ctx, db, d); err != nil {
		return Backlog{}, fmt.Errorf("outbox: depth (was outbox.Migrate run?): %w", err)
	}
	return b, nil
}

// addOthers counts what is not in the tables of the partitions.
func (b *Backlog) addOthers(ctx context.Context, db *sql.DB, d *Dialect) error {
	if err := db.QueryRowContext(ctx, d.dead.count).Scan(&b.Dead); err != nil {
		return err
	}
	var overdue sql.NullInt64
	if err := db.QueryRowContext(ctx, d.aside.count).Scan(&b.Parked, &b.Delayed, &overdue); err != nil {
		return err
	}
	if overdue.Int64 > 0 {
		b.Oldest = max(b.Oldest, time.Duration(overdue.Int64)*time.Microsecond)
	}
	b.Rows, b.Dead = b.Rows+b.Delayed, b.Dead+b.Parked
	return nil
}
