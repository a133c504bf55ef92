package main_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite" // the participant's database

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

// payment is the input of the sagas of these tests.
type payment struct {
	ID      string
	Decline bool // the second step refuses, the first is undone
}

var (
	reserve = saga.NewAction[payment, string]("bank.reserve")
	charge  = saga.NewAction[payment, string]("bank.charge")

	pay = saga.Define("pay", func(b *saga.Builder, in payment) {
		b.Step("reserve", reserve.With(in))
		b.Step("charge", charge.With(in))
	})
)

const createLedger = `CREATE TABLE ledger (id TEXT NOT NULL, what TEXT NOT NULL, PRIMARY KEY (id, what))`

// bank is a participant in the test's process, with a database of its own. Its
// ledger has one row for each effect that stands: a second one for the same
// payment fails.
type bank struct {
	db *sql.DB
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// openMySQL opens a database of a server with the outbox's tables.
func openMySQL(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.MySQL); err != nil {
		t.Fatal(err)
	}
	return db
}

// openDatabase opens a SQLite file with the outbox's tables.
func openDatabase(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	return db
}

// openBank runs the participant until the test ends.
func openBank(t *testing.T, conn grpc.ClientConnInterface) *bank {
	t.Helper()
	b := &bank{db: openDatabase(t, filepath.Join(t.TempDir(), "bank.db"))}
	if _, err := b.db.ExecContext(t.Context(), createLedger); err != nil {
		t.Fatal(err)
	}
	p := sdk.NewParticipant("bank", b.db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet()})
	sdk.HandleSaga(p, reserve, b.enter("reserve"), b.remove("reserve"))
	sdk.HandleSaga(p, charge, b.enter("charge"), b.remove("charge"))
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx, conn) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Errorf("participant: %v", err)
		}
	})
	return b
}

func (b *bank) enter(what string) func(context.Context, *sql.Tx, payment) (string, error) {
	return func(ctx context.Context, tx *sql.Tx, in payment) (string, error) {
		if what == "charge" && in.Decline {
			return "", sdk.Refuse(errors.New("card declined"))
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO ledger (id, what) VALUES (?, ?)`, in.ID, what)
		return what, err
	}
}

func (b *bank) remove(what string) func(context.Context, *sql.Tx, payment, string) error {
	return func(ctx context.Context, tx *sql.Tx, in payment, _ string) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM ledger WHERE id = ? AND what = ?`, in.ID, what)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("undo of %s %s removed %d rows: %w", what, in.ID, n, errors.Join(err))
		}
		return nil
	}
}

// ledger returns how many entries each payment has.
func (b *bank) ledger(t *testing.T) map[string]int {
	t.Helper()
	rows, err := b.db.QueryContext(t.Context(), `SELECT id, count(*) FROM ledger GROUP BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := map[string]int{}
	for rows.Next() {
		var id string
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			t.Fatal(err)
		}
		found[id] = n
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// begin starts a payment; gid and id are the same.
func begin(ctx context.Context, c *sdk.Client, id string, decline bool) (*sdk.Run, error) {
	return sdk.Start(ctx, c, pay, payment{id, decline}, &sdk.StartConfig{
		GID: id, Labels: map[string]string{"order_id": id},
	})
}
