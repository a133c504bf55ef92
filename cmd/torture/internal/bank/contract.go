// Package bank is what the torture runs: two halves of a bank, ordered lists,
// and whoever reads them. Every effect leaves a row that nothing keeps unique,
// so that one that took place twice would show.
package bank

import (
	"time"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/tcc"
)

// Sizes of what everybody fights for: small, so that they do.
const (
	Accounts = 48     // on each side, from 0
	Opening  = 20_000 // cents on each account
	Lists    = 12     // from 0
	Counters = 8      // on each side, from 0
)

// Sides of the bank, and the keeper of the lists: services, each with a
// database.
const (
	East  = "east"
	West  = "west"
	Notes = "notes"
)

// Names of the transactions. A transfer that is counted has one step more.
const (
	TransferName = "transfer"
	CountedName  = "transfer-counted"
	OperatedName = "operated"
	SwapName     = "swap"
)

// Transfer is money from one side to the other.
type Transfer struct {
	Seller, Buyer int // accounts
	FromWest      bool
	Cents         int64
	List          int    // that tells of it
	Note          string // the message's id
	Refuse        bool   // the receiving side turns it down
	Slow          int    // attempts that its first step fails
}

// Move is money that comes to an account, or leaves it when Cents are negative.
type Move struct {
	Account int
	Cents   int64
	Refuse  bool
	Slow    int
}

// Note is an entry of a list.
type Note struct {
	List int
	ID   string
}

// Count makes a counter larger by one.
type Count struct {
	Counter int
	Slow    int // attempts that fail
}

// retry is quick: processes are killed all the time.
func retry() saga.Retry {
	return saga.Retry{Initial: 50 * time.Millisecond, Cap: time.Second}
}

// The actions of sagas; each side has its own.
var (
	Debit  = perSide[Move]("debit")
	Credit = perSide[Move]("credit")
	Tally  = perSide[Count]("count")
	Write  = saga.NewAction[Note, struct{}](Notes + ".write").WithRetry(retry())
)

// Hold is the action of TCC transactions.
var Hold = map[string]tcc.Action[Move, struct{}]{
	East: tcc.NewAction[Move, struct{}](East + ".hold").WithRetry(retry()),
	West: tcc.NewAction[Move, struct{}](West + ".hold").WithRetry(retry()),
}

func perSide[Req any](verb string) map[string]saga.Action[Req, struct{}] {
	return map[string]saga.Action[Req, struct{}]{
		East: saga.NewAction[Req, struct{}](East + "." + verb).WithRetry(retry()),
		West: saga.NewAction[Req, struct{}](West + "." + verb).WithRetry(retry()),
	}
}

// Sides returns where the money of a transfer comes from, and where it goes.
func (t Transfer) Sides() (from, to string) {
	if t.FromWest {
		return West, East
	}
	return East, West
}

// The sagas. Credit is the pivot: money that arrived may be spent, so it is not
// taken back; the note behind it only goes forward.
var (
	Plain = saga.Define(TransferName, func(b *saga.Builder, in Transfer) {
		from, to := in.Sides()
		b.Step("debit", Debit[from].With(Move{in.Seller, -in.Cents, false, in.Slow}))
		settle(b, to, in)
	})
	Counted = saga.Define(CountedName, func(b *saga.Builder, in Transfer) {
		from, to := in.Sides()
		b.Step("debit", Debit[from].With(Move{in.Seller, -in.Cents, false, in.Slow}))
		b.Step("count", Tally[to].With(Count{in.Buyer % Counters, 0}))
		settle(b, to, in)
	})
	// Operated is what operators skip, complete and fail: it moves no money.
	Operated = saga.Define(OperatedName, func(b *saga.Builder, in Transfer) {
		b.Step("one", Tally[East].With(Count{in.Seller % Counters, 0}))
		b.Step("two", Tally[West].With(Count{in.Buyer % Counters, in.Slow}))
		b.Step("three", Tally[East].With(Count{in.Buyer % Counters, in.Slow / 2}))
	})
)

func settle(b *saga.Builder, to string, in Transfer) {
	b.Step("credit", Credit[to].With(Move{in.Buyer, in.Cents, in.Refuse, 0})).Pivot()
	b.Step("note", Write.With(Note{in.List, in.Note})).Retriable()
}
