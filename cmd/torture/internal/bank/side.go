package bank

import (
	"context"
	"database/sql"
	"errors"

	"github.com/amends-dev/amends/sdk"
)

const (
	// takeSQL finds no row where it would leave less than nothing.
	takeSQL    = `UPDATE accounts SET cents = cents + ? WHERE id = ? AND cents + ? >= 0`
	putSQL     = `UPDATE accounts SET cents = cents + ? WHERE id = ?`
	holdSQL    = `UPDATE accounts SET cents = cents - ?, held = held + ? WHERE id = ? AND cents >= ?`
	keepSQL    = `UPDATE accounts SET held = held - ? WHERE id = ?`
	releaseSQL = `UPDATE accounts SET cents = cents + ?, held = held - ? WHERE id = ?`
	countSQL   = `UPDATE counters SET n = n + ? WHERE id = ?`
	effectSQL  = `INSERT INTO effects (gid, branch, op, account, cents) VALUES (?, ?, ?, ?, ?)`
)

var (
	errNoMoney = errors.New("no money")
	errClosed  = errors.New("account closed")
	errNotNow  = errors.New("not now")
	errNoRow   = errors.New("there is no such row")
	errNoCall  = errors.New("the context is no handler's")
)

// What an effect has that is about no account, and what moves no money.
const (
	noneAccount = -1
	noCents     = int64(0)
)

// effect notes what a handler did to an account.
func effect(ctx context.Context, tx *sql.Tx, account int, cents int64) error {
	call, ok := sdk.Info(ctx)
	if !ok {
		return errNoCall
	}
	_, err := tx.ExecContext(ctx, effectSQL, call.GID, call.Branch, call.Op.String(), account, cents)
	return err
}

// change runs a statement that must find its row, and notes the effect.
func change(ctx context.Context, tx *sql.Tx, account int, cents int64, query string, args ...any) error {
	if err := must(ctx, tx, query, args...); err != nil {
		return err
	}
	return effect(ctx, tx, account, cents)
}

// slow fails the first attempts of a call.
func slow(ctx context.Context, attempts int) error {
	if call, ok := sdk.Info(ctx); ok && call.Attempt <= attempts {
		return errNotNow
	}
	return nil
}

// offerSide registers what a side of the bank does.
func offerSide(p *sdk.Participant, side string) {
	sdk.HandleSaga(p, Debit[side], debit, func(ctx context.Context, tx *sql.Tx, m Move, _ struct{}) error {
		return change(ctx, tx, m.Account, -m.Cents, putSQL, -m.Cents, m.Account)
	})
	sdk.HandleSaga(p, Credit[side], func(ctx context.Context, tx *sql.Tx, m Move) (none struct{}, err error) {
		if m.Refuse {
			return none, sdk.Refuse(errClosed)
		}
		return none, change(ctx, tx, m.Account, m.Cents, putSQL, m.Cents, m.Account)
	}, nil)
	sdk.HandleSaga(p, Tally[side], func(ctx context.Context, tx *sql.Tx, c Count) (none struct{}, err error) {
		if err := slow(ctx, c.Slow); err != nil {
			return none, err
		}
		return none, change(ctx, tx, noneAccount, noCents, countSQL, 1, c.Counter)
	}, func(ctx context.Context, tx *sql.Tx, c Count, _ struct{}) error {
		return change(ctx, tx, noneAccount, noCents, countSQL, -1, c.Counter)
	})
	sdk.HandleTCC(p, Hold[side], try, confirm, cancel)
}

func debit(ctx context.Context, tx *sql.Tx, m Move) (none struct{}, err error) {
	if err := slow(ctx, m.Slow); err != nil {
		return none, err
	}
	found, err := one(ctx, tx, takeSQL, m.Cents, m.Account, m.Cents)
	switch {
	case err != nil:
		return none, err
	case !found:
		return none, sdk.Refuse(errNoMoney)
	}
	return none, effect(ctx, tx, m.Account, m.Cents)
}

// try sets money aside that is to leave; what is to come does not exist yet.
func try(ctx context.Context, tx *sql.Tx, m Move) (none struct{}, err error) {
	if m.Refuse {
		return none, sdk.Refuse(errClosed)
	}
	if m.Cents >= 0 {
		return none, effect(ctx, tx, m.Account, noCents)
	}
	found, err := one(ctx, tx, holdSQL, -m.Cents, -m.Cents, m.Account, -m.Cents)
	switch {
	case err != nil:
		return none, err
	case !found:
		return none, sdk.Refuse(errNoMoney)
	}
	return none, effect(ctx, tx, m.Account, m.Cents)
}

func confirm(ctx context.Context, tx *sql.Tx, m Move, _ struct{}) error {
	if m.Cents >= 0 {
		return change(ctx, tx, m.Account, m.Cents, putSQL, m.Cents, m.Account)
	}
	return change(ctx, tx, m.Account, noCents, keepSQL, -m.Cents, m.Account)
}

func cancel(ctx context.Context, tx *sql.Tx, m Move, _ struct{}) error {
	if m.Cents >= 0 {
		return effect(ctx, tx, m.Account, noCents)
	}
	return change(ctx, tx, m.Account, -m.Cents, releaseSQL, -m.Cents, -m.Cents, m.Account)
}
