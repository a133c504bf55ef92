package main

import (
	"context"
	"database/sql"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

// Entry is an amount on one account, in cents.
type Entry struct {
	Account string
	Cents   int64
}

// Done is the reply of actions that have nothing to say.
type Done struct{}

// Input is what a transfer starts from.
type Input struct {
	From, To string
	Cents    int64
}

// The contract: what the accounts service can do. Both sides import it.
var (
	Debit  = saga.NewAction[Entry, Done]("accounts.debit")
	Credit = saga.NewAction[Entry, Done]("accounts.credit")
)

// Transfer takes the money first and gives it then.
var Transfer = saga.Define("transfer", func(b *saga.Builder, in Input) {
	b.Step("debit", Debit.With(Entry{in.From, in.Cents}))
	b.Step("credit", Credit.With(Entry{in.To, in.Cents})).Attempts(5)
})

// accounts is the service: whoever offers an action knows how to undo it.
func accounts(db *sql.DB) *sdk.Participant {
	p := sdk.NewParticipant("accounts", db, outbox.SQLite, nil)
	sdk.HandleSaga(p, Debit, take, giveBack)
	sdk.HandleSaga(p, Credit, give, takeBack)
	return p
}

// transfer returns nil when the money moved, and a *sdk.RolledBackError when
// nothing did.
func transfer(ctx context.Context, client *sdk.Client, in Input) error {
	return sdk.RunSaga(ctx, client, Transfer, in, nil)
}
