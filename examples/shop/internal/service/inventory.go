package service

import (
	"context"
	"database/sql"
	"errors"

	"github.com/amends-dev/amends/sdk"
)

// A piece is on the shelf, held for somebody, or gone.
const inventorySchema = `
CREATE TABLE IF NOT EXISTS stock (
  product TEXT PRIMARY KEY, shelf INTEGER NOT NULL, held INTEGER NOT NULL DEFAULT 0, gone INTEGER NOT NULL DEFAULT 0);`

const (
	stockSQL   = `INSERT INTO stock (product, shelf) VALUES (?, ?) ON CONFLICT DO NOTHING`
	holdSQL    = `UPDATE stock SET shelf = shelf - ?2, held = held + ?2 WHERE product = ?1 AND shelf >= ?2`
	unholdSQL  = `UPDATE stock SET shelf = shelf + ?2, held = held - ?2 WHERE product = ?1`
	handOutSQL = `UPDATE stock SET held = held - ?2, gone = gone + ?2 WHERE product = ?1`
)

// None of these is safe to run twice. It does not have to be: the guard sees to
// it that each takes effect once, whatever crashes and however often it is
// called.

// runInventory holds goods for orders and for gifts, and hands them out.
func runInventory(ctx context.Context, h *host) error {
	for _, p := range Catalogue() {
		if _, err := h.db.ExecContext(ctx, stockSQL, p.Name, p.Stock); err != nil {
			return err
		}
	}
	p := h.participant()
	sdk.HandleSaga(p, Reserve, hold, unhold)
	sdk.HandleSaga(p, Ship, handOut, nil)
	sdk.HandleTCC(p, Gift, hold,
		func(ctx context.Context, tx *sql.Tx, g Goods, _ struct{}) error {
			_, err := handOut(ctx, tx, g)
			return err
		}, unhold)
	return h.attend(ctx, p)
}

func hold(ctx context.Context, tx *sql.Tx, g Goods) (struct{}, error) {
	res, err := tx.ExecContext(ctx, holdSQL, g.Product, g.Quantity)
	if err != nil {
		return struct{}{}, err // nobody knows: the coordinator asks again
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		err = sdk.Refuse(errors.New("out of stock"))
	}
	return struct{}{}, err
}

func unhold(ctx context.Context, tx *sql.Tx, g Goods, _ struct{}) error {
	return exec(ctx, tx, unholdSQL, g.Product, g.Quantity)
}

func handOut(ctx context.Context, tx *sql.Tx, g Goods) (struct{}, error) {
	return struct{}{}, exec(ctx, tx, handOutSQL, g.Product, g.Quantity)
}
