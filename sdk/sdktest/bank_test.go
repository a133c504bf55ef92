package sdktest_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"testing"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/tcc"
)

// The bank of the tests: accounts in one service, holds by TCC in another.

type move struct {
	Account string
	Cents   int64
}

type transfer struct {
	From, To string
	Cents    int64
}

var (
	debit  = saga.NewAction[move, int64]("accounts.debit")
	credit = saga.NewAction[move, int64]("accounts.credit")
	hold   = tcc.NewAction[move, int64]("holds.hold")

	transferSaga = saga.Define("transfer", func(b *saga.Builder, in transfer) {
		b.Step("debit", debit.With(move{in.From, in.Cents}))
		b.Step("credit", credit.With(move{in.To, in.Cents}))
	})
)

var quiet = slog.New(slog.DiscardHandler)

var errBank = errors.New("no such account or not enough money")

// add changes a balance; it refuses what leads below zero.
func add(ctx context.Context, tx *sql.Tx, account string, cents int64) (int64, error) {
	var balance int64
	err := tx.QueryRowContext(ctx, `UPDATE accounts SET cents = cents + ? WHERE id = ? AND cents + ? >= 0 RETURNING cents`,
		cents, account, cents).Scan(&balance)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, sdk.Refuse(errBank)
	}
	return balance, err
}

func openBank(t testing.TB, db *sql.DB) {
	t.Helper()
	if _, err := db.Exec(`CREATE TABLE accounts (id TEXT PRIMARY KEY, cents INTEGER NOT NULL);
		INSERT INTO accounts VALUES ('alice', 1000), ('bob', 0)`); err != nil {
		t.Fatal(err)
	}
}

func newBank(db *sql.DB, instance string) *sdk.Participant {
	cfg := &sdk.ParticipantConfig{Instance: instance, Logger: quiet}
	p := sdk.NewParticipant("accounts", db, outbox.SQLite, cfg)
	handleBank(p)
	return p
}

func handleBank(p *sdk.Participant) {
	sdk.HandleSaga(p, debit,
		func(ctx context.Context, tx *sql.Tx, m move) (int64, error) { return add(ctx, tx, m.Account, -m.Cents) },
		func(ctx context.Context, tx *sql.Tx, m move, _ int64) error {
			_, err := add(ctx, tx, m.Account, m.Cents)
			return err
		})
	sdk.HandleSaga(p, credit,
		func(ctx context.Context, tx *sql.Tx, m move) (int64, error) { return add(ctx, tx, m.Account, m.Cents) },
		func(ctx context.Context, tx *sql.Tx, m move, _ int64) error {
			_, err := add(ctx, tx, m.Account, -m.Cents)
			return err
		})
}

func balance(t testing.TB, db *sql.DB, account string) int64 {
	t.Helper()
	var cents int64
	if err := db.QueryRow(`SELECT cents FROM accounts WHERE id = ?`, account).Scan(&cents); err != nil {
		t.Fatal(err)
	}
	return cents
}
