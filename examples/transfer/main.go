// Transfer is the README's first saga: money goes from one account to another,
// or back. It runs everything in one process, coordinator included, and keeps
// nothing:
//
//	go run ./examples/transfer
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

// Entry is an amount on one account, in cents.
type Entry struct {
	Account string
	Cents   int64
}

// TransferInput is what a transfer starts from.
type TransferInput struct {
	From, To string
	Cents    int64
}

// The contract: what the accounts service can do. Both sides import it.
var (
	Debit  = saga.NewAction[Entry, struct{}]("accounts.debit")
	Credit = saga.NewAction[Entry, struct{}]("accounts.credit")
)

// Transfer takes the money first and gives it then.
var Transfer = saga.Define("transfer", func(b *saga.Builder, in TransferInput) {
	b.Step("debit", Debit.With(Entry{in.From, in.Cents}))
	b.Step("credit", Credit.With(Entry{in.To, in.Cents})).Attempts(5)
})

// accounts is the service: whoever offers an action knows how to undo it.
func accounts(db *sql.DB) *sdk.Participant {
	p := sdk.NewParticipant("accounts", db, outbox.SQLite, nil)
	sdk.HandleSaga(p, Debit,
		func(ctx context.Context, tx *sql.Tx, e Entry) (struct{}, error) {
			return struct{}{}, change(ctx, tx, e.Account, -e.Cents)
		},
		func(ctx context.Context, tx *sql.Tx, e Entry, _ struct{}) error {
			return change(ctx, tx, e.Account, e.Cents)
		})
	sdk.HandleSaga(p, Credit,
		func(ctx context.Context, tx *sql.Tx, e Entry) (struct{}, error) {
			return struct{}{}, change(ctx, tx, e.Account, e.Cents)
		},
		func(ctx context.Context, tx *sql.Tx, e Entry, _ struct{}) error {
			return change(ctx, tx, e.Account, -e.Cents)
		})
	return p
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

func main() {
	dir, err := os.MkdirTemp("", "amends-transfer-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) // a leftover in the temporary directory does no harm
	if err := run(context.Background(), os.Stdout, dir); err != nil {
		log.Fatal(err)
	}
}

// run starts a coordinator and the service, transfers, and stops both.
func run(ctx context.Context, out io.Writer, dir string) error {
	db, err := openBank(ctx, filepath.Join(dir, "accounts.db"))
	if err != nil {
		return err
	}
	defer db.Close() // what was committed is durable
	store, err := sqlstore.OpenSQLite(ctx, filepath.Join(dir, "coordinator"), nil)
	if err != nil {
		return err
	}
	defer store.Close() // likewise
	c, err := coordinator.New(ctx, store, nil)
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return accounts(db).Run(ctx, c.Conn()) })
	g.Go(func() error {
		defer stop()
		return transfers(ctx, out, sdk.NewClient(c.Conn(), nil), db)
	})
	return g.Wait()
}

func transfers(ctx context.Context, out io.Writer, client *sdk.Client, db *sql.DB) error {
	for _, in := range []TransferInput{
		{From: "alice", To: "bob", Cents: 500},
		{From: "alice", To: "bob", Cents: 100_000},
		{From: "alice", To: "nobody", Cents: 100},
	} {
		saga, err := sdk.Start(ctx, client, Transfer, in, nil)
		if err != nil {
			return err
		}
		var rb *sdk.RolledBackError
		switch err := saga.Wait(ctx); {
		case err == nil:
			fmt.Fprintf(out, "%s to %s, %d: committed\n", in.From, in.To, in.Cents)
		case errors.As(err, &rb):
			fmt.Fprintf(out, "%s to %s, %d: rolled back at %q: %s\n", in.From, in.To, in.Cents, rb.Step, rb.Reason)
		default:
			return err // nobody knows yet; saga.GID() names it for later
		}
	}
	return printBalances(ctx, out, db)
}

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
