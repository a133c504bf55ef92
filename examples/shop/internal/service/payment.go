package service

import (
	"context"
	"database/sql"
	"errors"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/sdk"
)

const paymentSchema = `
CREATE TABLE IF NOT EXISTS account (
  customer TEXT PRIMARY KEY, cents INTEGER NOT NULL,
  points INTEGER NOT NULL DEFAULT 0, points_held INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS capture (
  n INTEGER PRIMARY KEY, order_id TEXT NOT NULL, customer TEXT NOT NULL, cents INTEGER NOT NULL);`

const (
	openAccountSQL   = `INSERT INTO account (customer, cents) VALUES (?, ?) ON CONFLICT DO NOTHING`
	takeSQL          = `UPDATE account SET cents = cents - ?2 WHERE customer = ?1 AND cents >= ?2`
	captureSQL       = `INSERT INTO capture (order_id, customer, cents) VALUES (?, ?, ?) RETURNING n`
	holdPointsSQL    = `UPDATE account SET points_held = points_held + ?2 WHERE customer = ?1`
	givePointsSQL    = `UPDATE account SET points = points + ?2, points_held = points_held - ?2 WHERE customer = ?1`
	releasePointsSQL = `UPDATE account SET points_held = points_held - ?2 WHERE customer = ?1`
)

// runPayment charges cards and keeps loyalty points.
func runPayment(ctx context.Context, h *host) error {
	f := &faults{dir: h.cfg.Dir}
	p := h.participant()
	sdk.HandleSaga(p, Pay, func(ctx context.Context, tx *sql.Tx, c Charge) (Receipt, error) {
		r, err := charge(ctx, tx, c)
		if err == nil {
			err = f.strike(ctx, c)
		}
		return r, err
	}, nil)
	sdk.HandleTCC(p, Points,
		func(ctx context.Context, tx *sql.Tx, a Award) (struct{}, error) {
			return struct{}{}, exec(ctx, tx, holdPointsSQL, a.Customer, a.Points)
		},
		func(ctx context.Context, tx *sql.Tx, a Award, _ struct{}) error {
			return exec(ctx, tx, givePointsSQL, a.Customer, a.Points)
		},
		func(ctx context.Context, tx *sql.Tx, a Award, _ struct{}) error {
			return exec(ctx, tx, releasePointsSQL, a.Customer, a.Points)
		})
	return h.attend(ctx, p, f.dialOption())
}

// charge takes the money. Run twice it would take it twice; the guard runs it
// once.
func charge(ctx context.Context, tx *sql.Tx, c Charge) (Receipt, error) {
	if c.Card == orders.Declined {
		return Receipt{}, sdk.Refuse(errors.New("card declined"))
	}
	if _, err := tx.ExecContext(ctx, openAccountSQL, c.Customer, OpeningBalance); err != nil {
		return Receipt{}, err
	}
	res, err := tx.ExecContext(ctx, takeSQL, c.Customer, c.Cents)
	if err != nil {
		return Receipt{}, err
	}
	switch n, err := res.RowsAffected(); {
	case err != nil:
		return Receipt{}, err
	case n == 0:
		return Receipt{}, sdk.Refuse(errors.New("not enough money"))
	}
	var r Receipt
	err = tx.QueryRowContext(ctx, captureSQL, c.OrderID, c.Customer, c.Cents).Scan(&r.Capture)
	return r, err
}
