package service

import (
	"context"
	"database/sql"
	"errors"

	"github.com/amends-dev/amends/sdk"
)

// A piece is on the shelf, held for somebody, or gone.
const stockTable = `CREATE TABLE IF NOT EXISTS stock (
  product VARCHAR(64) PRIMARY KEY, shelf INTEGER NOT NULL,
  held INTEGER NOT NULL DEFAULT 0, gone INTEGER NOT NULL DEFAULT 0)`

const (
	stockSQL   = `INSERT INTO stock (product, shelf) VALUES (?, ?) {else} shelf = shelf`
	holdSQL    = `UPDATE stock SET shelf = shelf - ?, held = held + ? WHERE product = ? AND shelf >= ?`
	unholdSQL  = `UPDATE stock SET shelf = shelf + ?, held = held - ? WHERE product = ?`
	handOutSQL = `UPDATE stock SET held = held - ?, gone = gone + ? WHERE product = ?`
)

// None of these is safe to run twice. It does not have to be: the guard sees to
// it that each takes effect once, whatever crashes and however often it is
// called.

// runInventory holds goods for orders and for gifts, and hands them out.
func runInventory(ctx context.Context, h *host) error {
	for _, p := range Catalogue() {
		if _, err := h.db.ExecContext(ctx, h.kind.say(stockSQL), p.Name, p.Stock); err != nil {
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
	res, err := tx.ExecContext(ctx, holdSQL, g.Quantity, g.Quantity, g.Product, g.Quantity)
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
	return exec(ctx, tx, unholdSQL, g.Quantity, g.Quantity, g.Product)
}

func handOut(ctx context.Context, tx *sql.Tx, g Goods) (struct{}, error) {
	return struct{}{}, exec(ctx, tx, handOutSQL, g.Quantity, g.Quantity, g.Product)
}
