package service

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// An order is placed, then open, then confirmed or rejected. Its reward is due
// from the confirmation on, and given or refused in the end; empty if it wants none.
// UNIQUE is only how both kinds of database spell an index within a table.
const ordersTable = `CREATE TABLE IF NOT EXISTS orders (
  id VARCHAR(64) PRIMARY KEY, body TEXT NOT NULL, customer VARCHAR(64) NOT NULL, product VARCHAR(64) NOT NULL,
  quantity INTEGER NOT NULL, cents BIGINT NOT NULL, gift VARCHAR(64) NOT NULL, submitted INTEGER NOT NULL DEFAULT 1,
  state VARCHAR(16) NOT NULL DEFAULT 'placed', reward VARCHAR(16) NOT NULL DEFAULT '', UNIQUE (reward, id))`

const (
	placeSQL = `INSERT INTO orders (id, body, customer, product, quantity, cents, gift) VALUES (?, ?, ?, ?, ?, ?, ?)
{else} submitted = submitted + 1`
	placedSQL  = `SELECT submitted, body FROM orders WHERE id = ?`
	openSQL    = `UPDATE orders SET state = 'open' WHERE id = ?`
	rejectSQL  = `UPDATE orders SET state = 'rejected' WHERE id = ?`
	confirmSQL = `UPDATE orders SET state = 'confirmed', reward = CASE WHEN gift = '' THEN '' ELSE 'due' END WHERE id = ?`
)

// Why an order is turned away. Nothing of it remains.
var (
	errUnknownProduct = errors.New("unknown product")
	errOtherOrder     = errors.New("another order has this id")
)

// runOrder takes orders over HTTP, starts a saga for each and takes part in it.
// What it writes into its outbox, `amends relay` brings to Kafka and to the
// coordinator, in a process of its own.
func runOrder(ctx context.Context, h *host) error {
	conn, err := h.connect()
	if err != nil {
		return err
	}
	defer conn.Close() // what is under way is done again by whoever comes next
	s := &orderService{host: h, client: h.client(conn)}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.participant().Run(ctx, conn) })
	g.Go(func() error { return s.rewards(ctx) })
	g.Go(func() error { return s.serve(ctx) })
	return g.Wait()
}

type orderService struct {
	*host
	client *sdk.Client
}

func (s *orderService) participant() *sdk.Participant {
	p := s.host.participant()
	sdk.HandleSaga(p, Open,
		func(ctx context.Context, tx *sql.Tx, o OrderRef) (struct{}, error) {
			return struct{}{}, exec(ctx, tx, openSQL, o.ID)
		},
		func(ctx context.Context, tx *sql.Tx, o OrderRef, _ struct{}) error {
			return s.end(ctx, tx, rejectSQL, TopicRejected, o)
		})
	sdk.HandleSaga(p, Confirm,
		func(ctx context.Context, tx *sql.Tx, o OrderRef) (struct{}, error) {
			return struct{}{}, s.end(ctx, tx, confirmSQL, TopicConfirmed, o)
		}, nil)
	return p
}

// end changes an order for the last time and tells the world, both or neither.
func (s *orderService) end(ctx context.Context, tx *sql.Tx, query, topic string, o OrderRef) error {
	if err := exec(ctx, tx, query, o.ID); err != nil {
		return err
	}
	return s.box.Write(ctx, tx, outbox.Message{Topic: s.cfg.Prefix + topic, Key: o.ID, Body: []byte(o.ID)})
}

// place is one local transaction: the order's row, the message that it was
// placed, and the start of its saga. Placing it again says the same three
// things again, under the same names, and changes nothing but a counter: the
// coordinator knows the gid, and the inbox of whoever reads knows the message.
func (s *orderService) place(ctx context.Context, o orders.Order) (again bool, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return false, err
	}
	price, sold := priceOf(o.Product)
	cents := price * int64(o.Quantity)
	err = s.box.Tx(ctx, s.db, func(tx *sql.Tx) error {
		row := []any{o.ID, string(body), o.Customer, o.Product, o.Quantity, cents, o.Gift}
		if _, err := tx.ExecContext(ctx, s.kind.say(placeSQL), row...); err != nil {
			return err
		}
		var submitted int
		var known []byte
		if err := tx.QueryRowContext(ctx, placedSQL, o.ID).Scan(&submitted, &known); err != nil {
			return err
		}
		if !bytes.Equal(known, body) {
			return errOtherOrder
		}
		again = submitted > 1
		message := outbox.Message{ID: "placed-" + o.ID, Topic: s.cfg.Prefix + TopicPlaced, Key: o.ID, Body: body}
		if err := s.box.Write(ctx, tx, message); err != nil {
			return err
		}
		start := &sdk.StartConfig{GID: "order-" + o.ID, Labels: map[string]string{"customer": o.Customer}}
		if _, err := sdk.StartTx(ctx, s.box, tx, PlaceOrder, Placed{o, cents}, start); err != nil {
			return err
		}
		if !sold { // looked at last, on purpose: all of the above vanishes
			return fmt.Errorf("%w %q", errUnknownProduct, o.Product)
		}
		return nil
	})
	return again, err
}
