package idempotency

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// tries is how often a statement is run that met another transaction, and how
// often a claim is tried while others win.
const tries = 5

// store is the table.
type store struct {
	db *sql.DB
	d  *outbox.Dialect
	statements
}

// claim is a key that this process may run the handler for.
type claim struct {
	key   []byte
	token int64 // random: nobody else's, not even after the row was deleted and made anew
}

// verdict is what became of an attempt to claim a key.
type verdict uint8

const (
	claimed  verdict = iota
	running          // by another request
	answered         // the answer is recorded
	other            // it was used for another request
)

// answer is what a handler answered.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// row is what look found.
type row struct {
	fingerprint   []byte
	token         int64
	status        int
	header, body  []byte
	held, expired bool
}

// claim tries to become the one who runs the handler. It looks first, without a
// lock, because most requests find an answer or a running handler there; a look
// that finds nothing decides nothing: only the one whose INSERT, or whose UPDATE
// of the token that was seen, affects the row has the claim. Each statement is a
// transaction of its own, so that nobody waits for a running handler.
func (s *store) claim(ctx context.Context, key, mark []byte, lease, retention time.Duration) (claim, verdict, answer, error) {
	c := claim{key: key, token: newToken()}
	for range tries {
		r, err := s.lookUp(ctx, key)
		var n int64
		switch {
		case errors.Is(err, sql.ErrNoRows):
			n, err = s.exec(ctx, s.db, s.insert, key, mark, c.token, lease.Microseconds(), retention.Microseconds())
		case err != nil:
		case r.expired && !(r.held && r.status == 0), r.status == 0 && !r.held && bytes.Equal(r.fingerprint, mark):
			n, err = s.exec(ctx, s.db, s.take, mark, c.token, lease.Microseconds(), retention.Microseconds(), key, r.token)
		case !bytes.Equal(r.fingerprint, mark):
			return claim{}, other, answer{}, nil
		case r.status == 0:
			return claim{}, running, answer{}, nil
		default:
			a, err := r.answer()
			return claim{}, answered, a, err
		}
		if err != nil && !s.d.Retryable(err) {
			return claim{}, 0, answer{}, fmt.Errorf("idempotency: claim a key: %w", err)
		}
		if n == 1 && err == nil {
			return c, claimed, answer{}, nil
		}
	}
	return claim{}, running, answer{}, nil // whoever won each time is
}

func (s *store) lookUp(ctx context.Context, key []byte) (row, error) {
	var r row
	err := s.db.QueryRowContext(ctx, s.look, key). //nolint:gosec // one of two constants, by dialect
							Scan(&r.fingerprint, &r.token, &r.status, &r.header, &r.body, &r.held, &r.expired)
	return r, err
}

func (r *row) answer() (answer, error) {
	in := textproto.NewReader(bufio.NewReader(bytes.NewReader(r.header)))
	header, err := in.ReadMIMEHeader()
	if err != nil {
		return answer{}, fmt.Errorf("idempotency: headers of a recorded answer are damaged: %w", err)
	}
	return answer{status: r.status, header: http.Header(header), body: r.body}, nil
}

// errTaken says that the claim is somebody else's now, or gone.
var errTaken = errors.New("idempotency: the lease ended and another request has taken the key")

// execer is what *sql.DB and *sql.Tx have in common.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// keep records the answer of a claim. In a transaction it comes last.
func (s *store) keep(ctx context.Context, in execer, c claim, a answer) error {
	var header bytes.Buffer
	if err := a.header.Write(&header); err != nil {
		return err
	}
	header.WriteString("\r\n") // ends the block, and makes it not NULL
	body := a.body
	if body == nil {
		body = []byte{}
	}
	n, err := s.exec(ctx, in, s.record, a.status, header.Bytes(), body, c.key, c.token)
	if err == nil && n == 0 {
		return errTaken
	}
	return err
}

// drop gives a claim up that has no answer. After a commit of which nobody knows
// whether it took place it waits for its end, by the row's lock, and drops nothing
// that was recorded.
func (s *store) drop(ctx context.Context, c claim) error {
	for try := 1; ; try++ {
		_, err := s.exec(ctx, s.db, s.release, c.key, c.token)
		if err == nil || try == tries || !s.d.Retryable(err) {
			return err
		}
	}
}

func (s *store) exec(ctx context.Context, in execer, query string, args ...any) (int64, error) {
	res, err := in.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func newToken() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return int64(binary.BigEndian.Uint64(b[:]))
}

// Purge deletes up to limit keys that are past their Config.Retention by the
// database's clock, oldest first, and answers how many. Call it from time to time,
// until it answers less than limit. A key that is past its time is forgotten
// whether or not it was purged.
func Purge(ctx context.Context, db *sql.DB, d *outbox.Dialect, limit int) (int, error) {
	stmts, ok := statementsOf(d)
	if !ok || db == nil || limit <= 0 {
		return 0, errors.New("idempotency: purge: use a database, outbox.SQLite or outbox.MySQL, and a limit above 0")
	}
	s := store{db: db, d: d, statements: stmts}
	for try := 1; ; try++ {
		var n int64
		err := outbox.InTx(ctx, db, &sql.TxOptions{Isolation: s.isolation}, func(tx *sql.Tx) (err error) {
			n, err = s.exec(ctx, tx, s.purge, limit)
			return err
		})
		if err == nil {
			return int(n), nil
		}
		if try == tries || !d.Retryable(err) {
			return 0, fmt.Errorf("idempotency: purge: %w", err)
		}
	}
}
