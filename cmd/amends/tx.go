package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// maxMessage is the largest answer: a transaction with every payload.
const maxMessage = 64 << 20

// asking is what every `amends tx` command has: whom to ask, and how to print.
type asking struct {
	addr    string
	timeout time.Duration
	out     output
}

func newTx() *cobra.Command {
	cmd := group(&cobra.Command{Use: "tx", Short: "List, show and watch transactions"})
	cmd.AddCommand(newTxList(), newTxGet(), newTxEvents(), newTxWatch())
	return cmd
}

func (a *asking) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.addr, "addr", defaultAddr, "address of the coordinator")
	cmd.Flags().DurationVar(&a.timeout, "timeout", 10*time.Second, "how long to wait for an answer")
	a.out.flag(cmd)
}

// dial makes a connection; an address that nobody listens on shows at the
// first request.
func dial(addr string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // loopback; see SECURITY.md
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, usagef("address %q: %w", addr, err)
	}
	return conn, nil
}

// ask runs fn with a client of the coordinator and explains its error.
func (a *asking) ask(ctx context.Context, fn func(context.Context, amendsv1.AdminServiceClient) error) error {
	conn, err := dial(a.addr)
	if err != nil {
		return err
	}
	err = fn(ctx, amendsv1.NewAdminServiceClient(conn))
	return errors.Join(a.explain(ctx, err), conn.Close())
}

// askOnce is ask for one answer, within --timeout.
func (a *asking) askOnce(ctx context.Context, fn func(context.Context, amendsv1.AdminServiceClient) error) error {
	return a.ask(ctx, func(ctx context.Context, admin amendsv1.AdminServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		return fn(ctx, admin)
	})
}

// explain turns what gRPC says into what a person can act on.
func (a *asking) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var known *amendsv1.Error
	st := status.Convert(err)
	err = amendsv1.FromError(err)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, amendsv1.ErrFilter), errors.Is(err, amendsv1.ErrPageToken):
		return &usageError{err}
	case st.Code() == codes.Unavailable && len(st.Details()) == 0: // gRPC's own, not a coordinator's
		return fmt.Errorf("no coordinator answers at %s: run 'amends serve' there, or name another with --addr (%s)",
			a.addr, st.Message())
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s did not answer within %v (--timeout)", a.addr, a.timeout)
	}
	return err
}
