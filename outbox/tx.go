package outbox

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// InTx runs fn in a transaction of db on a connection of its own, commits when
// fn returns nil and rolls back on every other way out; a panic goes on. nil
// options are the database's defaults. fn's error is returned as it is. After an
// error of the commit nobody knows whether it took place.
func InTx(ctx context.Context, db *sql.DB, opts *sql.TxOptions, fn func(tx *sql.Tx) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer conn.Close() // gives it back to the pool; its error says nothing about the transaction
	tx, err := conn.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { // ErrTxDone: it was committed, or rolled back when ctx ended
		if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // as below
		}
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		// database/sql would put the connection back into the pool, perhaps with
		// its transaction still open; ErrBadConn makes it close it.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // its error is the one given here
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
