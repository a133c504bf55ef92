package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// The handlers. tx also holds the guard's claim, so that each takes effect
// once, however often it is delivered.

func take(ctx context.Context, tx *sql.Tx, e Entry) (Done, error) {
	return Done{}, change(ctx, tx, e.Account, -e.Cents)
}

func giveBack(ctx context.Context, tx *sql.Tx, e Entry, _ Done) error {
	return change(ctx, tx, e.Account, e.Cents)
}

// change adds cents to an account, which must exist and may not become
// negative.
func change(ctx context.Context, tx *sql.Tx, account string, cents int64) error {
	const update = `UPDATE account SET cents = cents + ? WHERE id = ? AND cents + ? >= 0`
	res, err := tx.ExecContext(ctx, update, cents, account, cents)
	if err != nil {
		return err // unknown: the coordinator asks again
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return sdk.Refuse(fmt.Errorf("account %s: unknown, or not enough money", account))
}

func give(ctx context.Context, tx *sql.Tx, e Entry) (Done, error) {
	return Done{}, change(ctx, tx, e.Account, e.Cents)
}

func takeBack(ctx context.Context, tx *sql.Tx, e Entry, _ Done) error {
	return change(ctx, tx, e.Account, -e.Cents)
}

// openBank makes a database in which alice has 1,000 and bob nothing.
func openBank(ctx context.Context, path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(path))
	if err != nil {
		return nil, err
	}
	const schema = `
CREATE TABLE account (id TEXT PRIMARY KEY, cents INTEGER NOT NULL);
INSERT INTO account VALUES ('alice', 1000), ('bob', 0);`
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func printBalances(ctx context.Context, out io.Writer, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, `SELECT id, cents FROM account ORDER BY id`)
	if err != nil {
		return err
	}
	defer rows.Close() // read to the end below
	for rows.Next() {
		var id string
		var cents int64
		if err := rows.Scan(&id, &cents); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s has %d\n", id, cents)
	}
	return rows.Err()
}
