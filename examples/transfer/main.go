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
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/sdk"
)

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	dir, err := os.MkdirTemp("", "amends-transfer-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) // a leftover in the temporary directory does no harm
	if err := run(context.Background(), os.Stdout, dir); err != nil {
		log.Print(err)
		os.Exit(1)
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
	for _, in := range []Input{
		{From: "alice", To: "bob", Cents: 500},
		{From: "alice", To: "bob", Cents: 100_000},
		{From: "alice", To: "nobody", Cents: 100},
	} {
		var rb *sdk.RolledBackError
		switch err := transfer(ctx, client, in); {
		case err == nil:
			fmt.Fprintf(out, "%s to %s, %d: committed\n", in.From, in.To, in.Cents)
		case errors.As(err, &rb):
			fmt.Fprintf(out, "%s to %s, %d: rolled back at %q: %s\n", in.From, in.To, in.Cents, rb.Step, rb.Reason)
		default:
			return err // nobody knows yet
		}
	}
	return printBalances(ctx, out, db)
}
