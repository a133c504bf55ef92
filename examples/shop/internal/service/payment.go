package service

import (
	"context"
	"database/sql"
	"errors"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/sdk"
)

const (
	accountTable = `CREATE TABLE IF NOT EXISTS account (
  customer VARCHAR(64) PRIMARY KEY, cents BIGINT NOT NULL,
  points BIGINT NOT NULL DEFAULT 0, points_held BIGINT NOT NULL DEFAULT 0)`
	captureTable = `CREATE TABLE IF NOT EXISTS capture (
  n {serial}, order_id VARCHAR(64) NOT NULL, customer VARCHAR(64) NOT NULL, cents BIGINT NOT NULL)`
)

const (
	openAccountSQL   = `INSERT INTO account (customer, cents) VALUES (?, ?) {else} cents = cents`
	takeSQL          = `UPDATE account SET cents = cents - ? WHERE customer = ? AND cents >= ?`
	captureSQL       = `INSERT INTO capture (order_id, customer, cents) VALUES (?, ?, ?)`
	holdPointsSQL    = `UPDATE account SET points_held = points_held + ? WHERE customer = ?`
	givePointsSQL    = `UPDATE account SET points = points + ?, points_held = points_held - ? WHERE customer = ?`
	releasePointsSQL = `UPDATE account SET points_held = points_held - ? WHERE customer = ?`
)

// runPayment charges cards and keeps loyalty points.
func runPayment(ctx context.Context, h *host) error {
	f := &faults{dir: h.cfg.Dir}
	p := h.participant()
	sdk.HandleSaga(p, Pay, func(ctx context.Context, tx *sql.Tx, c Charge) (Receipt, error) {
		r, err := charge(ctx, tx, h.kind.say(openAccountSQL), c)
		if err == nil {
			err = f.strike(ctx, c)
		}
		return r, err
	}, nil)
	sdk.HandleTCC(p, Points,
		func(ctx context.Context, tx *sql.Tx, a Award) (struct{}, error) {
			return struct{}{}, exec(ctx, tx, holdPointsSQL, a.Points, a.Customer)
		},
		func(ctx context.Context, tx *sql.Tx, a Award, _ struct{}) error {
			return exec(ctx, tx, givePointsSQL, a.Points, a.Points, a.Customer)
		},
		func(ctx context.Context, tx *sql.Tx, a Award, _ struct{}) error {
			return exec(ctx, tx, releasePointsSQL, a.Points, a.Customer)
		})
	return h.attend(ctx, p, f.dialOption())
}

// charge takes the money. Run twice it would take it twice; the guard runs it
// once.
func charge(ctx context.Context, tx *sql.Tx, openAccount string, c Charge) (Receipt, error) {
	if c.Card == orders.Declined {
		return Receipt{}, sdk.Refuse(errors.New("card declined"))
	}
	if _, err := tx.ExecContext(ctx, openAccount, c.Customer, OpeningBalance); err != nil {
		return Receipt{}, err
	}
	res, err := tx.ExecContext(ctx, takeSQL, c.Cents, c.Customer, c.Cents)
	if err != nil {
		return Receipt{}, err
	}
	switch n, err := res.RowsAffected(); {
	case err != nil:
		return Receipt{}, err
	case n == 0:
		return Receipt{}, sdk.Refuse(errors.New("not enough money"))
	}
	if res, err = tx.ExecContext(ctx, captureSQL, c.OrderID, c.Customer, c.Cents); err != nil {
		return Receipt{}, err
	}
	n, err := res.LastInsertId()
	return Receipt{Capture: n}, err
}
