package sdk_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/tcc"
)

// The contract: both sides import it.
type (
	DebitRequest struct {
		Account string
		Cents   int
	}
	DebitReply    struct{ Balance int }
	CreditRequest struct {
		Account string
		Cents   int
	}
	CreditReply   struct{}
	TransferInput struct {
		From, To string
		Cents    int
	}
	SeatRequest struct{ Flight string }
	SeatReply   struct {
		Seat  string
		Lands time.Time
	}
	RoomRequest struct{ Until time.Time }
	RoomReply   struct{ Room string }
)

var (
	Debit  = saga.NewAction[DebitRequest, DebitReply]("accounts.debit")
	Credit = saga.NewAction[CreditRequest, CreditReply]("accounts.credit")
	Seat   = tcc.NewAction[SeatRequest, SeatReply]("flights.seat")
	Room   = tcc.NewAction[RoomRequest, RoomReply]("hotels.room")

	Transfer = saga.Define("transfer", func(b *saga.Builder, in TransferInput) {
		b.Step("debit", Debit.With(DebitRequest{in.From, in.Cents}))
		b.Step("credit", Credit.With(CreditRequest{in.To, in.Cents})).Attempts(5)
	})

	ErrInsufficientFunds = errors.New("insufficient funds")
)

const (
	takeMoney = "UPDATE accounts SET cents = cents - ? WHERE name = ? AND cents >= ?"
	giveMoney = "UPDATE accounts SET cents = cents + ? WHERE name = ?"
)

// A caller runs a saga and learns how it ended.
func ExampleRunSaga() {
	var ctx context.Context
	var conn *grpc.ClientConn // to the coordinator
	client := sdk.NewClient(conn, nil)

	err := sdk.RunSaga(ctx, client, Transfer, TransferInput{"alice", "bob", 500}, nil)
	var rolledBack *sdk.RolledBackError
	var unknown *sdk.UnknownError
	switch {
	case err == nil:
		fmt.Println("done")
	case errors.As(err, &rolledBack):
		fmt.Println("undone because of", rolledBack.Step, rolledBack.Reason)
	case errors.As(err, &unknown):
		fmt.Println("ask again:", unknown.GID) // client.Run(unknown.GID).Wait(ctx)
	default:
		fmt.Println("not begun:", err)
	}
}

// A caller starts a saga, goes on, and learns later how it ended.
func ExampleStart() {
	var ctx context.Context
	var client *sdk.Client
	run, err := sdk.Start(ctx, client, Transfer, TransferInput{"alice", "bob", 500}, nil)
	if err != nil {
		log.Print(err) // it has not begun, unless errors.Is(err, sdk.ErrUnknown)
		return
	}
	fmt.Println("begun as", run.GID())
	if err := run.Wait(ctx); err != nil {
		log.Print(err)
	}
}

// A participant knows how to do an action and how to undo it.
func ExampleParticipant_Run() {
	var ctx context.Context
	var db *sql.DB            // the service's own database
	var conn *grpc.ClientConn // to the coordinator
	p := sdk.NewParticipant("accounts", db, outbox.SQLite, nil)
	sdk.HandleSaga(p, Debit,
		func(ctx context.Context, tx *sql.Tx, req DebitRequest) (DebitReply, error) {
			res, err := tx.ExecContext(ctx, takeMoney, req.Cents, req.Account, req.Cents)
			if err != nil {
				return DebitReply{}, err // asked again
			}
			n, err := res.RowsAffected()
			if err == nil && n == 0 {
				err = sdk.Refuse(ErrInsufficientFunds) // turns the saga back
			}
			return DebitReply{}, err
		},
		func(ctx context.Context, tx *sql.Tx, req DebitRequest, _ DebitReply) error {
			_, err := tx.ExecContext(ctx, giveMoney, req.Cents, req.Account)
			return err
		})
	if err := p.Run(ctx, conn); err != nil { // until ctx ends
		log.Print(err)
	}
}

// A TCC transaction reserves, and then everything is confirmed or cancelled.
func ExampleRunTCC() {
	var ctx context.Context
	var client *sdk.Client
	err := sdk.RunTCC(ctx, client, "trip", func(ctx context.Context, t *sdk.TCC) error {
		seat, err := sdk.Try(ctx, t, Seat, SeatRequest{"LH 456"})
		if err != nil {
			return err // cancels what was tried
		}
		_, err = sdk.Try(ctx, t, Room, RoomRequest{Until: seat.Lands})
		return err // nil confirms
	}, nil)
	if errors.Is(err, sdk.ErrRolledBack) {
		fmt.Println("nothing is reserved:", err)
	}
}

// The order and the start of its saga are one local transaction.
func ExampleStartTx() {
	var ctx context.Context
	var db *sql.DB
	var client *sdk.Client
	box := outbox.New(outbox.SQLite, nil)
	err := box.Tx(ctx, db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES (?)", "A-17"); err != nil {
			return err
		}
		_, err := sdk.StartTx(ctx, box, tx, Transfer, TransferInput{"alice", "shop", 500},
			&sdk.StartConfig{GID: "order-A-17", Labels: map[string]string{"order_id": "A-17"}})
		return err
	})
	if err != nil {
		log.Print(err)
	}

	// Somewhere in the process, until its end:
	relay := outbox.NewRelay(box, db, outbox.Route(map[string]outbox.Publisher{
		sdk.StartTopic: sdk.NewStarter(client),
	}, nil), nil)
	if err := relay.Run(ctx); err != nil {
		log.Print(err)
	}
}
