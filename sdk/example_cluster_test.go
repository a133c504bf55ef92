package sdk_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

var (
	greet   = saga.NewAction[string, string]("greeters.greet")
	welcome = saga.Define("welcome", func(b *saga.Builder, who string) { b.Step("greet", greet.With(who)).Pivot() })
)

// Dial connects to a cluster: give it one address or more, and it finds the other
// members. Clients and participants use it in place of a connection.
func ExampleDial() {
	address, stop := exampleCoordinator()
	defer stop()

	cluster, err := sdk.Dial([]string{address}, nil) // credentials: DialConfig.Options
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	ctx, end := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return greeter().Run(ctx, cluster) }) // a stream to every member

	run, err := sdk.Start(ctx, sdk.NewClient(cluster, nil), welcome, "Ada", nil)
	if err == nil {
		err = run.Wait(ctx)
	}
	fmt.Println("ended:", err)
	fmt.Println("members:", len(cluster.Members()))

	end() // the participant drains, and then the cluster is closed
	if err := g.Wait(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// ended: <nil>
	// members: 1
}

func greeter() *sdk.Participant {
	dir, err := os.MkdirTemp("", "greeters")
	if err != nil {
		log.Fatal(err)
	}
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(dir, "greeters.db")))
	if err != nil {
		log.Fatal(err)
	}
	p := sdk.NewParticipant("greeters", db, outbox.SQLite, nil)
	sdk.HandleSaga(p, greet, func(_ context.Context, _ *sql.Tx, who string) (string, error) { return "hello, " + who, nil }, nil)
	return p
}

func exampleCoordinator() (address string, stop func()) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	c, err := coordinator.New(context.Background(), memstore.New(nil), &coordinator.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return c.Serve(ctx, lis) })
	return lis.Addr().String(), func() {
		end()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			log.Fatal(err)
		}
	}
}
