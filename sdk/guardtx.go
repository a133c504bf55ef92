package sdk

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/outbox/inbox"
)

// inTx runs fn in a transaction, commits if it returns nil and rolls back on
// every other way out, a panic included. A refusal whose rollback failed is no
// refusal: nobody knows what stands.
func (g *guard) inTx(ctx context.Context, p *promise, fn func(*sql.Tx) ([]byte, error)) (reply []byte, err error) {
	release, err := g.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := g.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	defer func() {
		if cerr := conn.Close(); cerr != nil && !errors.Is(cerr, sql.ErrConnDone) { // done: it was discarded
			err = errors.Join(err, cerr)
		}
	}()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	committing, committed := false, false
	if g.outbox != nil {
		ended := g.outbox.Follow(tx)
		defer func() { ended(committed) }()
	}
	defer func() {
		if committing {
			return
		}
		if rerr := tx.Rollback(); rerr != nil {
			if !errors.Is(rerr, sql.ErrTxDone) {
				cleanSession(ctx, conn)
			}
			reply, err = nil, g.ended(ctx, conn, p, notRolledBack(ctx, err, rerr))
		}
	}()
	reply, err = fn(tx)
	if err != nil {
		return reply, err
	}
	committing = true
	if err := tx.Commit(); err != nil {
		if ctx.Err() == nil && errors.Is(err, sql.ErrTxDone) {
			return nil, g.ended(ctx, conn, p, fmt.Errorf("%w (%w)", errEnded, err))
		}
		cleanSession(ctx, conn)
		return nil, fmt.Errorf("commit: %w", err)
	}
	committed = true
	return reply, nil
}

// takeTurn waits, where the database has one writer, until that is the caller,
// and returns what ends its turn.
func (g *guard) takeTurn(ctx context.Context) (release func(), err error) {
	if g.turn == nil {
		return func() {}, nil
	}
	select {
	case g.turn <- struct{}{}:
		return func() { <-g.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the database's only writer: %w", ctx.Err())
	}
}

// notRolledBack says what a failed rollback makes of the error before it. That
// one is quoted, not wrapped: it may be a refusal.
func notRolledBack(ctx context.Context, err, rollback error) error {
	if errors.Is(rollback, sql.ErrTxDone) {
		if ctx.Err() != nil { // database/sql rolled back when ctx ended
			return fmt.Errorf("%w (the handler said: %v)", context.Cause(ctx), err)
		}
		if errors.Is(err, errEnded) {
			return err
		}
		rollback = errEnded
	}
	return fmt.Errorf("roll back: %w (the handler said: %v)", rollback, err)
}

// ended takes the record from a claim that a handler, as err says, may have
// committed itself, of which nobody knows what it did before and after: only a
// person can tell.
func (g *guard) ended(ctx context.Context, conn *sql.Conn, p *promise, err error) error {
	if p.record == nil || !errors.Is(err, errEnded) {
		return err
	}
	tx, berr := conn.BeginTx(ctx, nil)
	if berr != nil {
		return errors.Join(err, fmt.Errorf("begin: %w", berr))
	}
	rerr := inbox.Record(ctx, tx, g.dialect, p.key, nil)
	switch {
	case rerr == nil:
		rerr = tx.Commit()
	case errors.Is(rerr, inbox.ErrNotClaimed): // it was rolled back
		rerr = tx.Rollback()
	default:
		rerr = errors.Join(rerr, tx.Rollback())
	}
	if rerr != nil {
		cleanSession(ctx, conn)
		return errors.Join(err, rerr)
	}
	return err
}

// cleanSession ends a transaction that a failed commit or rollback may have left open on
// the connection, which database/sql does not, and discards the connection if
// that fails: its next user would work inside that transaction.
func cleanSession(ctx context.Context, conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		// The error is the one asked for.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
}
