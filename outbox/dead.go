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

// Dead is a dead letter: a message that could never be published.
type Dead struct {
	Number   int64     // names it for Replay and Drop
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
	key := []byte(q.Key)
	rows, err := db.QueryContext(ctx, d.dead.list, flag(q.Brief), q.After, q.Topic, q.Topic, key, key, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: list dead letters: %w", err)
	}
	defer rows.Close() // its error is in rows.Err
	var out []Dead
	for rows.Next() {
		dl, err := scanDead(rows)
		if err != nil {
			return nil, fmt.Errorf("outbox: list dead letters: %w", err)
		}
		out = append(out, dl)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("outbox: list dead letters: %w", err)
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

func scanDead(rows interface{ Scan(...any) error }) (Dead, error) {
	var dl Dead
	var part int
	var created, failed int64
	var id, key, headers, idem, text []byte
	m := &dl.Message
	if err := rows.Scan(&dl.Number, &part, &id, &m.Topic, &key, &m.Body, &headers, &idem, &created, &failed,
		&dl.Attempts, &text, &dl.Size); err != nil {
		return Dead{}, err
	}
	m.ID, m.Key, m.IdempotencyKey = string(id), string(key), string(idem)
	m.CreatedAt, dl.FailedAt, dl.Error = time.UnixMicro(created), time.UnixMicro(failed), string(text)
	// Damaged headers can be why it is here: it is listed without them.
	m.Headers, _ = decodeHeaders(headers)
	return dl, nil
}

// Replay is Operator.Replay for programs: nobody's act is recorded. It moves dead
// letters back into the outbox, in the order given: they are
// published after what is there already. All are moved or none; a number that is
// not there is ErrNoDeadLetter. Wake the outbox afterwards.
func Replay(ctx context.Context, db *sql.DB, d *Dialect, numbers ...int64) error {
	parts := make([]int, len(numbers))
	for i, n := range numbers {
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
		for i, n := range numbers {
			if _, err := tx.ExecContext(ctx, d.part[parts[i]].revive, n); err != nil {
				return fmt.Errorf("outbox: replay dead letter %d: %w", n, err)
			}
			if err := dropOne(ctx, tx, d, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// Drop is Operator.Discard for programs: nobody's act is recorded. It deletes
// dead letters for good. All are deleted or none; a number that is
// not there is ErrNoDeadLetter.
func Drop(ctx context.Context, db *sql.DB, d *Dialect, numbers ...int64) error {
	return InTx(ctx, db, d.txOptions(), func(tx *sql.Tx) error {
		for _, n := range numbers {
			if err := dropOne(ctx, tx, d, n); err != nil {
				return err
			}
		}
		return nil
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
	Rows   int64         // messages that wait to be published
	Oldest time.Duration // age of the oldest of them, 0 when there are none
	Dead   int64         // dead letters
}

// Depth counts the rows of the outbox, exactly: its cost grows with them.
func Depth(ctx context.Context, db *sql.DB, d *Dialect) (Backlog, error) {
	var b Backlog
	var err error
	if b.Rows, err = countRows(ctx, db, d); err != nil {
		return Backlog{}, fmt.Errorf("outbox: depth: %w", err)
	}
	for p := range d.part {
		var age int64
		err := db.QueryRowContext(ctx, d.part[p].oldest).Scan(&age)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return Backlog{}, fmt.Errorf("outbox: depth: %w", err)
		}
		b.Oldest = max(b.Oldest, time.Duration(age)*time.Microsecond)
	}
	if err := db.QueryRowContext(ctx, d.dead.count).Scan(&b.Dead); err != nil {
		return Backlog{}, fmt.Errorf("outbox: depth: %w", err)
	}
	return b, nil
}
