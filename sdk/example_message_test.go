package sdk_test

import (
	"context"
	"database/sql"
	"errors"
	"log"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/sdk"
)

// orderStore keeps orders without SQL.
type orderStore interface {
	Insert(ctx context.Context, gid string, order []byte) error        // fails if gid was cancelled
	Cancel(ctx context.Context, gid string) (inserted bool, err error) // changes nothing if it was inserted
}

func ExampleSendMessage() {
	var (
		ctx    = context.Background()
		client *sdk.Client
		store  orderStore
		body   []byte
	)
	err := sdk.SendMessage(ctx, client, outbox.Message{Topic: "orders", Key: "A-17", Body: body}, "orders.placed",
		func(ctx context.Context, gid string) error {
			return store.Insert(ctx, gid, body) // commits, under gid
		}, nil)
	switch {
	case err == nil: // is published
	case errors.Is(err, sdk.ErrRolledBack): // never will be
	case errors.Is(err, sdk.ErrUnknown): // the check decides
	}
}

func ExampleHandleCheck() {
	var (
		ctx   = context.Background()
		conn  grpc.ClientConnInterface
		store orderStore
	)
	p := sdk.NewChecker("orders", nil) // or any Participant of the service
	sdk.HandleCheck(p, "orders.placed", func(ctx context.Context, gid string) (sdk.CheckResult, error) {
		inserted, err := store.Cancel(ctx, gid) // from now on, Insert of this gid fails
		switch {
		case err != nil:
			return sdk.CheckUnknown, err
		case inserted:
			return sdk.CheckCommitted, nil
		}
		return sdk.CheckRolledBack, nil
	})
	if err := p.Run(ctx, conn); err != nil {
		log.Print(err)
	}
}

func ExampleNewCourier() {
	var (
		conn  grpc.ClientConnInterface
		db    *sql.DB
		kafka outbox.Publisher
	)
	g, ctx := errgroup.WithContext(context.Background())
	box := outbox.New(outbox.SQLite, nil)
	courier := sdk.NewCourier(box, db, nil)
	g.Go(func() error { return courier.Run(ctx, conn) })
	g.Go(func() error { return outbox.NewRelay(box, db, kafka, nil).Run(ctx) })
	if err := g.Wait(); err != nil {
		log.Print(err)
	}
}
