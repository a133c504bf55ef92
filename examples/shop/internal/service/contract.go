// Package service is the shop: four services, each with a database of its own
// and, in the demo, a process of its own.
//
// They know of each other only what stands in this file: the actions that each
// offers, the saga that an order is, and the topics that tell of it.
package service

import (
	"time"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/tcc"
)

// Names of the services.
const (
	Order        = "order"
	Inventory    = "inventory"
	Payment      = "payment"
	Notification = "notification"
)

// Topics in Kafka. The key of a message is the order's id.
const (
	TopicPlaced    = "orders.placed"
	TopicConfirmed = "orders.confirmed"
	TopicRejected  = "orders.rejected"
)

// OrderRef names an order.
type OrderRef struct{ ID string }

// Goods are some pieces of a product, held for an order.
type Goods struct {
	OrderID  string
	Product  string
	Quantity int
}

// Charge is money that an order costs.
type Charge struct {
	OrderID  string
	Customer string
	Cents    int64
	Card     string
	Fault    string // for the demo
}

// Receipt answers a Charge.
type Receipt struct{ Capture int64 }

// Award is loyalty points for an order.
type Award struct {
	OrderID  string
	Customer string
	Points   int64
}

// retry is quick, because the demo kills what it calls; what stays unanswered
// is asked again after half a second at the latest.
func retry() saga.Retry {
	return saga.Retry{Initial: 50 * time.Millisecond, Cap: 500 * time.Millisecond}
}

// The actions of the saga, by the service that performs them.
var (
	Open    = saga.NewAction[OrderRef, struct{}]("order.open").WithRetry(retry())
	Reserve = saga.NewAction[Goods, struct{}]("inventory.reserve").WithRetry(retry())
	Pay     = saga.NewAction[Charge, Receipt]("payment.charge").WithRetry(retry())
	Ship    = saga.NewAction[Goods, struct{}]("inventory.ship").WithRetry(retry())
	Confirm = saga.NewAction[OrderRef, struct{}]("order.confirm").WithRetry(retry())
)

// The branches of the TCC transaction that rewards an order.
var (
	Points = tcc.NewAction[Award, struct{}]("payment.points").WithRetry(retry())
	Gift   = tcc.NewAction[Goods, struct{}]("inventory.gift").WithRetry(retry())
)

// Placed is what the saga starts from.
type Placed struct {
	Order orders.Order
	Cents int64
}

// PlaceOrder is an order from its placing to its end. Whatever may refuse
// comes before the charge, or is the charge: it is the pivot, because money
// given back is money that was taken, which a customer sees and a bank bills.
// Behind it the saga only goes forward, so the rest is retriable. The undo of
// "open", the last of all undos, is how the order learns that it is rejected.
var PlaceOrder = saga.Define("place-order", func(b *saga.Builder, in Placed) {
	o := in.Order
	goods := Goods{OrderID: o.ID, Product: o.Product, Quantity: o.Quantity}
	b.Step("open", Open.With(OrderRef{o.ID}))
	b.Step("reserve", Reserve.With(goods))
	b.Step("charge", Pay.With(Charge{o.ID, o.Customer, in.Cents, o.Card, o.Fault})).Pivot()
	b.Step("ship", Ship.With(goods)).Retriable()
	b.Step("confirm", Confirm.With(OrderRef{o.ID})).Retriable()
})

// Product is something that the shop sells or gives away.
type Product struct {
	Name  string
	Cents int64 // the price; 0: a gift, which nobody can order
	Stock int   // pieces at the beginning
}

// Catalogue is everything that there is.
func Catalogue() []Product {
	return []Product{
		{"teapot", 2490, 1000}, {"kettle", 5900, 1000}, {"cup", 450, 2000}, {"spoon", 199, 2000},
		{"lantern", 7950, 300}, {"samovar", 24900, 0},
		{"mug", 0, 1000}, {"medal", 0, 40},
	}
}

// priceOf returns what a piece costs, and false for what cannot be ordered.
func priceOf(name string) (cents int64, known bool) {
	for _, p := range Catalogue() {
		if p.Name == name && p.Cents > 0 {
			return p.Cents, true
		}
	}
	return 0, false
}

// OpeningBalance is the money on a new account, in cents.
const OpeningBalance = 1_000_000
