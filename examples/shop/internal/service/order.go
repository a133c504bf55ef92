package service

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// An order is placed, then open, then confirmed or rejected. Its reward is due
// from the confirmation on, and given or refused in the end; empty if it wants none.
const orderSchema = `
CREATE TABLE IF NOT EXISTS orders (
  id TEXT PRIMARY KEY, body TEXT NOT NULL, customer TEXT NOT NULL, product TEXT NOT NULL, quantity INTEGER NOT NULL,
  cents INTEGER NOT NULL, gift TEXT NOT NULL, submitted INTEGER NOT NULL DEFAULT 1,
  state TEXT NOT NULL DEFAULT 'placed', reward TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS orders_reward ON orders (reward) WHERE reward = 'due';`

const (
	placeSQL = `INSERT INTO orders (id, body, customer, product, quantity, cents, gift) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET submitted = submitted + 1 WHERE body = excluded.body RETURNING submitted`
	openSQL    = `UPDATE orders SET state = 'open' WHERE id = ?`
	rejectSQL  = `UPDATE orders SET state = 'rejected' WHERE id = ?`
	confirmSQL = `UPDATE orders SET state = 'confirmed', reward = iif(gift = '', '', 'due') WHERE id = ?`
)

// Why an order is turned away. Nothing of it remains.
var (
	errUnknownProduct = errors.New("unknown product")
	errOtherOrder     = errors.New("another order has this id")
)

// runOrder takes orders over HTTP, starts a saga for each and takes part in it.
func runOrder(ctx context.Context, h *host) error {
	conn, err := h.connect()
	if err != nil {
		return err
	}
	defer conn.Close() // what is under way is done again by whoever comes next
	kafka, err := outbox.NewKafka([]string{h.cfg.Kafka}, &outbox.KafkaConfig{CreateTopics: true, Logger: h.cfg.Logger})
	if err != nil {
		return err
	}
	defer kafka.Close()
	cache := redis.NewClient(&redis.Options{Addr: h.cfg.Redis})
	defer cache.Close() // it holds nothing that is not in the database too
	keys, err := outbox.NewRedisKeys(cache, &outbox.RedisConfig{Prefix: "shop-order:", Logger: h.cfg.Logger})
	if err != nil {
		return err
	}
	client := h.client(conn)
	s := &orderService{host: h, client: client}
	pub := outbox.Route(map[string]outbox.Publisher{sdk.StartTopic: sdk.NewStarter(client)}, kafka)
	relay := outbox.NewRelay(h.box, h.db, pub, &outbox.RelayConfig{Keys: keys, Logger: h.cfg.Logger})

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return relay.Run(ctx) })
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
	return s.box.Write(ctx, tx, outbox.Message{Topic: topic, Key: o.ID, Body: []byte(o.ID)})
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
	price, known := priceOf(o.Product)
	cents := price * int64(o.Quantity)
	err = s.box.Tx(ctx, s.db, func(tx *sql.Tx) error {
		var submitted int
		row := tx.QueryRowContext(ctx, placeSQL, o.ID, string(body), o.Customer, o.Product, o.Quantity, cents, o.Gift)
		if err := row.Scan(&submitted); errors.Is(err, sql.ErrNoRows) {
			return errOtherOrder
		} else if err != nil {
			return err
		}
		again = submitted > 1
		message := outbox.Message{ID: "placed-" + o.ID, Topic: TopicPlaced, Key: o.ID, Body: body}
		if err := s.box.Write(ctx, tx, message); err != nil {
			return err
		}
		start := &sdk.StartConfig{GID: "order-" + o.ID, Labels: map[string]string{"customer": o.Customer}}
		if _, err := sdk.StartTx(ctx, s.box, tx, PlaceOrder, Placed{o, cents}, start); err != nil {
			return err
		}
		if !known { // looked at last, on purpose: all of the above vanishes
			return fmt.Errorf("%w %q", errUnknownProduct, o.Product)
		}
		return nil
	})
	return again, err
}
