// Trip books a seat and a room by TCC: both are reserved, then both confirmed,
// or both given back. It runs everything in one process and keeps nothing:
//
//	go run ./examples/trip
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
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/tcc"
)

// Booking asks for one unit of something on a day.
type Booking struct {
	Guest string
	Day   int
}

// Reserved answers it.
type Reserved struct {
	Number int64
}

// The contract of both services: two actions of the same shape.
var (
	Seat = tcc.NewAction[Booking, Reserved]("flights.seat")
	Room = tcc.NewAction[Booking, Reserved]("hotels.room")
)

const schema = `
CREATE TABLE unit (number INTEGER PRIMARY KEY, day INTEGER NOT NULL,
  guest TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT 'free');`

// service offers one action over a table of units.
func service(name string, db *sql.DB, action tcc.Action[Booking, Reserved]) *sdk.Participant {
	p := sdk.NewParticipant(name, db, outbox.SQLite, nil)
	sdk.HandleTCC(p, action, reserve, confirm, release)
	return p
}

// reserve takes a free unit out of sale. Others see it as held: that is the
// isolation that TCC gives.
func reserve(ctx context.Context, tx *sql.Tx, b Booking) (Reserved, error) {
	const take = `UPDATE unit SET state = 'held', guest = ? WHERE number =
  (SELECT number FROM unit WHERE day = ? AND state = 'free' LIMIT 1) RETURNING number`
	var r Reserved
	err := tx.QueryRowContext(ctx, take, b.Guest, b.Day).Scan(&r.Number)
	if errors.Is(err, sql.ErrNoRows) {
		return r, sdk.Refuse(fmt.Errorf("nothing free on day %d", b.Day))
	}
	return r, err
}

func confirm(ctx context.Context, tx *sql.Tx, _ Booking, r Reserved) error {
	_, err := tx.ExecContext(ctx, `UPDATE unit SET state = 'sold' WHERE number = ?`, r.Number)
	return err
}

func release(ctx context.Context, tx *sql.Tx, _ Booking, r Reserved) error {
	_, err := tx.ExecContext(ctx, `UPDATE unit SET state = 'free', guest = '' WHERE number = ?`, r.Number)
	return err
}

// book is one transaction. What it returns decides: nil confirms both, an
// error cancels whatever was tried.
func book(ctx context.Context, client *sdk.Client, guest string, outward, night int) error {
	return sdk.RunTCC(ctx, client, "trip", func(ctx context.Context, t *sdk.TCC) error {
		if _, err := sdk.Try(ctx, t, Seat, Booking{guest, outward}); err != nil {
			return err
		}
		_, err := sdk.Try(ctx, t, Room, Booking{guest, night})
		return err
	}, nil)
}

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	dir, err := os.MkdirTemp("", "amends-trip-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir) // a leftover in the temporary directory does no harm
	if err := run(context.Background(), os.Stdout, dir); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// run starts a coordinator and both services, books, and stops all.
func run(ctx context.Context, out io.Writer, dir string) error {
	flights, err := open(ctx, filepath.Join(dir, "flights.db"), 1, 1)
	if err != nil {
		return err
	}
	defer flights.Close() // what was committed is durable
	hotels, err := open(ctx, filepath.Join(dir, "hotels.db"), 1, 2)
	if err != nil {
		return err
	}
	defer hotels.Close() // likewise
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
	g.Go(func() error { return service("flights", flights, Seat).Run(ctx, c.Conn()) })
	g.Go(func() error { return service("hotels", hotels, Room).Run(ctx, c.Conn()) })
	g.Go(func() error {
		defer stop()
		client := sdk.NewClient(c.Conn(), nil)
		tell(out, "ada", book(ctx, client, "ada", 1, 2))
		tell(out, "bob", book(ctx, client, "bob", 1, 3)) // a seat, but no room on day 3
		return errors.Join(show(ctx, out, "flights", flights), show(ctx, out, "hotels", hotels))
	})
	return g.Wait()
}

func tell(out io.Writer, guest string, err error) {
	var rb *sdk.RolledBackError
	switch {
	case err == nil:
		fmt.Fprintf(out, "%s: booked\n", guest)
	case errors.As(err, &rb):
		fmt.Fprintf(out, "%s: not booked, %s: %s\n", guest, rb.Step, rb.Reason)
	default:
		fmt.Fprintf(out, "%s: not known yet: %v\n", guest, err)
	}
}

// open makes a database with one free unit on each of the days.
func open(ctx context.Context, path string, days ...int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(path))
	if err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	for _, day := range days {
		if _, err := db.ExecContext(ctx, `INSERT INTO unit (day) VALUES (?)`, day); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return db, nil
}

func show(ctx context.Context, out io.Writer, name string, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, `SELECT number, day, guest, state FROM unit ORDER BY number`)
	if err != nil {
		return err
	}
	defer rows.Close() // read to the end below
	for rows.Next() {
		var number, day int
		var guest, state string
		if err := rows.Scan(&number, &day, &guest, &state); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: unit %d on day %d is %s %s\n", name, number, day, state, guest)
	}
	return rows.Err()
}
