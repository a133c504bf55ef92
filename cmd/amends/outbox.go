package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

func newOutbox() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "outbox",
		Short: "Show the outbox of a service, and act on its messages",
		Long: `Show how full the outbox in a service's database is, which messages do not get
through, and why; skip and park them, replay and discard dead letters. What is
done is recorded in the database, with who did it and the reason.

The commands ask a relay that runs with --listen (--addr), or go straight to the
database (--sqlite, --mysql, or ` + mysqlEnv + ` when no --addr is given).`,
	})
	dead := group(&cobra.Command{Use: "dead", Short: "Dead letters: messages that were given up"})
	dead.AddCommand(newDeadList(), newDeadGet(), newDeadReplay(), newDeadDiscard())
	cmd.AddCommand(newOutboxDepth(), newOutboxMessages(), newOutboxBlocked(), dead,
		newOutboxSkip(), newOutboxPark(), newOutboxActs(), newOutboxConvert())
	return cmd
}

// outboxAsking is what every command on an outbox has.
type outboxAsking struct {
	asking
	at location
}

func (o *outboxAsking) flags(cmd *cobra.Command) {
	o.asking.flags(cmd)
	addr := cmd.Flags().Lookup("addr")
	addr.Usage, addr.DefValue, o.addr = "address of a relay", defaultRelayAddr, defaultRelayAddr
	o.at.flags(cmd, "sqlite", "go to this SQLite database, a `file`")
}

// ask runs fn with an outbox's API.
func (o *outboxAsking) ask(cmd *cobra.Command, fn func(context.Context, amendsv1.OutboxServiceClient) error) error {
	ctx, given := cmd.Context(), cmd.Flags().Changed
	direct := given("sqlite") || given("mysql")
	switch {
	case o.timeout <= 0:
		return usagef("--timeout is %v: give a duration above 0", o.timeout)
	case direct && given("addr"):
		return usagef("--addr is for a relay, --sqlite and --mysql are for going to the database: give one of them")
	case direct || !given("addr") && os.Getenv(mysqlEnv) != "":
		return o.askDatabase(cmd, fn)
	}
	conn, err := o.dial(grpc.WithUnaryInterceptor(o.bounded))
	if err != nil {
		return err
	}
	return errors.Join(o.explainRelay(ctx, fn(ctx, amendsv1.NewOutboxServiceClient(conn))), conn.Close())
}

// explainRelay is explain, for somebody who asked a relay.
func (o *outboxAsking) explainRelay(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && unreached(err) && strings.Contains(err.Error(), "connection refused") {
		return fmt.Errorf("no relay answers at %s: run 'amends relay --listen' there, name another with --addr, "+
			"or go to the database with --sqlite or --mysql", o.addr)
	}
	return o.explain(ctx, err)
}

// askDatabase needs no relay.
func (o *outboxAsking) askDatabase(cmd *cobra.Command, fn func(context.Context, amendsv1.OutboxServiceClient) error) (err error) {
	if err := o.at.resolve(); err != nil {
		return err
	}
	db, dialect, err := o.at.openOutbox()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	op := outbox.New(dialect, nil).Operator(db)
	ctx := cmd.Context()
	if _, err := op.Acts(ctx, 0, 1); err != nil { // the newest of the tables
		return fmt.Errorf("%w (are its tables up to date? see 'amends migrate outbox')", o.at.explain(err))
	}
	warnings := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	api := outboxapi.New(op, &outboxapi.Config{Actor: atDatabase, Logger: warnings})
	// Without --timeout: an act that is cut short has moved nothing.
	return o.explain(ctx, fn(ctx, api.Client()))
}

// atDatabase is who acts without a relay: the user of this machine.
func atDatabase(context.Context) string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil { // the name is for people only
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil { // as above
		host = h
	}
	return name + "@" + host + " (database)"
}
