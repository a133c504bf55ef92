package check

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/amends-dev/amends/saga/txn"
)

// Ends of an order and of its reward.
const (
	confirmed = "confirmed"
	rejected  = "rejected"
	given     = "given"
	refused   = "refused"
)

// books is all that is known of a shop.
type books struct {
	shop         Shop
	orders       map[string]order
	stock        map[string]pieces
	accounts     accounts
	captures     []capture
	mails        []mail
	transactions map[string]transaction
	events       []event // by transaction and number
	outbox, dead int64   // rows
	log          []record
}

type order struct {
	product, gift, state, reward string
	quantity, cents, submitted   int64
}

func (o order) ended() bool { return o.state == confirmed || o.state == rejected }

type pieces struct{ shelf, held, gone int64 }

type accounts struct{ n, cents, points, held int64 }

type capture struct {
	order string
	cents int64
}

type mail struct{ message, topic, order string }

type transaction struct {
	kind, reason string
	state        txn.State
	lastSeq      int64
	lastHash     []byte
}

func (t transaction) committed() bool  { return t.state == txn.Committed }
func (t transaction) rolledBack() bool { return t.state == txn.RolledBack }

func (b *books) knows(gid string) bool {
	_, known := b.orders[strings.TrimPrefix(gid, "order-")]
	return known
}

const (
	ordersSQL   = `SELECT id, product, gift, state, reward, quantity, cents, submitted FROM orders`
	stockSQL    = `SELECT product, shelf, held, gone FROM stock`
	accountsSQL = `SELECT count(*), coalesce(sum(cents), 0), coalesce(sum(points), 0), coalesce(sum(points_held), 0)
FROM account`
	capturesSQL = `SELECT order_id, cents FROM capture ORDER BY n`
	mailsSQL    = `SELECT message_id, topic, order_id FROM mail ORDER BY n`
	outboxSQL   = `SELECT (SELECT count(*) FROM amends_outbox_0) + (SELECT count(*) FROM amends_outbox_1) +
  (SELECT count(*) FROM amends_outbox_2) + (SELECT count(*) FROM amends_outbox_3) +
  (SELECT count(*) FROM amends_outbox_4) + (SELECT count(*) FROM amends_outbox_aside), (SELECT count(*) FROM amends_outbox_dead)`
	transactionsSQL = `SELECT gid, kind, reason, state, event_seq, event_hash, trail FROM amends_transactions`
	eventsSQL       = `SELECT gid, seq, at, type, data, prev, hash FROM amends_events`
)

// load reads every database and the log.
func load(ctx context.Context, s Shop) (*books, error) {
	b := &books{shop: s, orders: map[string]order{}, stock: map[string]pieces{}, transactions: map[string]transaction{}}
	return b, errors.Join(
		b.loadOrders(ctx, s), b.loadPayment(ctx, s), b.loadCoordinator(ctx, s),
		s.Inventory.with(ctx, func(db *sql.DB) error {
			return each(ctx, db, stockSQL, func(scan scanner) error {
				var name string
				var p pieces
				err := scan(&name, &p.shelf, &p.held, &p.gone)
				b.stock[name] = p
				return err
			})
		}),
		s.Notification.with(ctx, func(db *sql.DB) error {
			return each(ctx, db, mailsSQL, func(scan scanner) error {
				var m mail
				err := scan(&m.message, &m.topic, &m.order)
				b.mails = append(b.mails, m)
				return err
			})
		}),
		b.loadLog(ctx, s))
}

func (b *books) loadOrders(ctx context.Context, s Shop) error {
	return s.Order.with(ctx, func(db *sql.DB) error {
		err := each(ctx, db, ordersSQL, func(scan scanner) error {
			var id string
			var o order
			err := scan(&id, &o.product, &o.gift, &o.state, &o.reward, &o.quantity, &o.cents, &o.submitted)
			b.orders[id] = o
			return err
		})
		return errors.Join(err, each(ctx, db, outboxSQL, func(scan scanner) error { return scan(&b.outbox, &b.dead) }))
	})
}

func (b *books) loadPayment(ctx context.Context, s Shop) error {
	return s.Payment.with(ctx, func(db *sql.DB) error {
		err := each(ctx, db, capturesSQL, func(scan scanner) error {
			var c capture
			err := scan(&c.order, &c.cents)
			b.captures = append(b.captures, c)
			return err
		})
		a := &b.accounts
		return errors.Join(err, each(ctx, db, accountsSQL, func(scan scanner) error {
			return scan(&a.n, &a.cents, &a.points, &a.held)
		}))
	})
}

func (b *books) loadCoordinator(ctx context.Context, s Shop) error {
	return s.Coordinator.with(ctx, func(db *sql.DB) error {
		err := each(ctx, db, transactionsSQL, func(scan scanner) error {
			var gid string
			var t transaction
			var trail []byte
			if err := scan(&gid, &t.kind, &t.reason, &t.state, &t.lastSeq, &t.lastHash, &trail); err != nil {
				return err
			}
			b.transactions[gid] = t
			return b.addLines(gid, trail)
		})
		err = errors.Join(err, each(ctx, db, eventsSQL, func(scan scanner) error {
			var e event
			err := scan(&e.gid, &e.seq, &e.at, &e.kind, &e.data, &e.prev, &e.hash)
			b.events = append(b.events, e)
			return err
		}))
		slices.SortStableFunc(b.events, func(x, y event) int { return cmp.Or(cmp.Compare(x.gid, y.gid), cmp.Compare(x.seq, y.seq)) })
		return err
	})
}

// addLines adds the entries that a transaction's row has of its trail: JSON, one
// a line. The others are rows.
func (b *books) addLines(gid string, trail []byte) error {
	for lines := json.NewDecoder(bytes.NewReader(trail)); lines.More(); {
		var l struct {
			Seq, At    int64
			Type       string
			Prev, Hash []byte
			Data       json.RawMessage
		}
		if err := lines.Decode(&l); err != nil {
			return fmt.Errorf("transaction %s: trail: %w", gid, err)
		}
		b.events = append(b.events, event{gid: gid, seq: l.Seq, at: l.At, kind: l.Type, data: l.Data, prev: l.Prev, hash: l.Hash})
	}
	return nil
}
