package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// grace is how much longer than the handler's context its claim lasts: time to
// record the answer.
const grace = 10 * time.Second

// run runs the handler of a claim and answers what the client is to see. On every
// way out without a recorded answer the claim is given up, also when the handler
// panics; if that fails, it ends with the lease.
func (m *Middleware) run(ctx context.Context, r *request, c claim, next http.Handler) (a answer) {
	settled := false
	defer func() {
		if !settled {
			m.release(ctx, r, c)
		}
	}()
	rec := newRecorder(m.cfg.MaxResponse)
	if m.cfg.Transactional {
		a, settled = m.runTx(ctx, r, c, rec, next)
		return a
	}
	m.handle(ctx, r, rec, next)
	a, final := m.judge(r, rec)
	settled = final || rec.broken != nil // then too: it did what it did
	if settled {
		m.record(ctx, r, c, a)
	}
	return a
}

// judge is what the client sees of a handler's answer, and whether it is final: to
// be recorded.
func (m *Middleware) judge(r *request, rec *recorder) (a answer, final bool) {
	a = rec.answer()
	if rec.broken != nil {
		m.log(r, slog.LevelError, "idempotency: the answer cannot be recorded", "error", rec.broken)
		a = unrecordable().answer(m.cfg.Docs)
	}
	return a, a.status < http.StatusInternalServerError
}

// errUndo rolls the handler's transaction back: it answered with an error.
var errUndo = errors.New("idempotency: the handler answered with an error")

// errEnded says that the transaction which the handler was given is over: what is
// recorded now would not stand or fall with what the handler did.
var errEnded = errors.New("idempotency: the transaction did not last as long as its handler, which ended it, " +
	"ran a statement that commits, went on after a deadlock, or ran far past Config.Lease")

// A savepoint lasts as long as its transaction, also where the server ended that by
// itself, which database/sql does not notice.
const (
	setSavepoint = `SAVEPOINT amends_idempotency`
	endSavepoint = `RELEASE SAVEPOINT amends_idempotency`
)

// runTx runs the handler in a transaction that also records its answer. settled
// is false where the claim is to be given up.
func (m *Middleware) runTx(ctx context.Context, r *request, c claim, rec *recorder, next http.Handler) (a answer, settled bool) {
	err := m.inTx(ctx, r, c, rec, next)
	switch {
	case err == nil:
		if m.cfg.Outbox != nil {
			m.cfg.Outbox.Wake()
		}
		return rec.answer(), true
	case errors.Is(err, errUndo):
		a, final := m.judge(r, rec)
		if final {
			m.record(ctx, r, c, a)
		}
		return a, final
	case errors.Is(err, errTaken):
		m.log(r, slog.LevelWarn, "idempotency: the handler ran past Config.Lease and another request took its key: rolled back")
		return stillRunning().answer(m.cfg.Docs), true // it is not ours
	}
	m.log(r, slog.LevelError, "idempotency: the transaction failed", "error", err)
	return unavailable().answer(m.cfg.Docs), false
}

func (m *Middleware) inTx(ctx context.Context, r *request, c claim, rec *recorder, next http.Handler) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Lease+grace)
	defer cancel()
	return outbox.InTx(ctx, m.store.db, m.cfg.TxOptions, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, setSavepoint); err != nil {
			return err
		}
		m.handle(context.WithValue(ctx, txKey, tx), r, rec, next)
		a := rec.answer()
		if a.status >= http.StatusBadRequest || rec.broken != nil {
			return errUndo
		}
		if _, err := tx.ExecContext(ctx, endSavepoint); err != nil {
			return fmt.Errorf("%w: %w", errEnded, err)
		}
		return m.store.keep(ctx, tx, c, a)
	})
}

// handle calls the handler.
func (m *Middleware) handle(ctx context.Context, r *request, rec *recorder, next http.Handler) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.Lease, fmt.Errorf("idempotency: Config.Lease of %v is over", m.cfg.Lease))
	defer cancel()
	next.ServeHTTP(rec, r.withBody(context.WithValue(ctx, idKey, r.key)))
}

// record keeps an answer outside of the handler's transaction. If that fails, the
// client has its answer and the key is free after its lease.
func (m *Middleware) record(ctx context.Context, r *request, c claim, a answer) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for try := 1; ; try++ {
		err := m.store.keep(ctx, m.store.db, c, a)
		if err == nil {
			return
		}
		if try == tries || !m.store.d.Retryable(err) {
			m.log(r, slog.LevelError, "idempotency: the answer was not recorded: a repeated request may run the handler again", "error", err)
			return
		}
	}
}

func (m *Middleware) release(ctx context.Context, r *request, c claim) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := m.store.drop(ctx, c); err != nil {
		m.log(r, slog.LevelWarn, "idempotency: a key was not freed: it is when its lease ends", "error", err)
	}
}
