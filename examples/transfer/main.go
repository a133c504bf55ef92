// Transfer is the README's first saga: money goes from one account to another,
// or back. It runs everything in one process, coordinator included, and keeps
// nothing:
//
//	go run ./examples/transfer
//
// With -coordinator it uses one that runs already, that of `amends dev` for
// example, whose console then shows the transfers:
//
//	go run ./examples/transfer -coordinator 127.0.0.1:7460
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
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
	addr := flag.String("coordinator", "", "use the coordinator at this `address` (default: one inside this program)")
	flag.Parse()
	slog.SetLogLoggerLevel(slog.LevelWarn)
	dir, err := os.MkdirTemp("", "amends-transfer-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) // a leftover in the temporary directory does no harm
	if err := run(context.Background(), os.Stdout, dir, *addr); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// run makes a bank in dir and transfers, by the coordinator at addr; if that is
// empty, by one of its own.
func run(ctx context.Context, out io.Writer, dir, addr string) error {
	db, err := openBank(ctx, filepath.Join(dir, "accounts.db"))
	if err != nil {
		return err
	}
	defer db.Close() // what was committed is durable
	if addr != "" {
		return connected(ctx, out, db, addr)
	}
	return embedded(ctx, out, db, dir)
}

// embedded starts a coordinator and the service, transfers, and stops both.
func embedded(ctx context.Context, out io.Writer, db *sql.DB, dir string) error {
	store, err := sqlstore.OpenSQLite(ctx, filepath.Join(dir, "coordinator"), nil)
	if err != nil {
		return err
	}
	defer store.Close() // what was acknowledged is durable
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

// connected is the same with a coordinator that runs elsewhere.
func connected(ctx context.Context, out io.Writer, db *sql.DB, addr string) error {
	conn, err := sdk.Dial([]string{addr}, nil)
	if err != nil {
		return err
	}
	defer conn.Close() // nothing uses it any more

	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return accounts(db).Run(ctx, conn) })
	g.Go(func() error {
		defer stop()
		return transfers(ctx, out, sdk.NewClient(conn, nil), db)
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
