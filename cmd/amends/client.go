package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// asking is what every command that asks a coordinator has: whom to ask, as
// whom, and how to print.
type asking struct {
	login
	timeout time.Duration
	out     output
}

// clients are the services of one coordinator.
type clients struct {
	admin    amendsv1.AdminServiceClient
	operator amendsv1.OperatorServiceClient
	cluster  amendsv1.ClusterServiceClient
}

func (a *asking) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.addr, "addr", defaultAddr, "address of the coordinator")
	a.login.flags(cmd)
	cmd.Flags().DurationVar(&a.timeout, "timeout", 10*time.Second, "how long to wait for each answer")
	a.out.flag(cmd)
	if cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions // gids and ids
	}
}

// ask runs fn with a coordinator's services and explains its error. Every
// request but streams is bounded by --timeout. An address that nobody listens
// on shows at the first request.
func (a *asking) ask(ctx context.Context, fn func(context.Context, *clients) error) error {
	if a.timeout <= 0 {
		return usagef("--timeout is %v: give a duration above 0", a.timeout)
	}
	conn, err := a.dial(grpc.WithUnaryInterceptor(a.bounded))
	if err != nil {
		return err
	}
	err = fn(ctx, &clients{
		amendsv1.NewAdminServiceClient(conn), amendsv1.NewOperatorServiceClient(conn), amendsv1.NewClusterServiceClient(conn),
	})
	return errors.Join(a.explain(ctx, err), conn.Close())
}

// bounded gives each request --timeout.
func (a *asking) bounded(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return next(ctx, method, req, reply, conn, opts...)
}

// unreached reports whether gRPC itself says that nobody answers; a coordinator
// that cannot serve just now says so with details.
func unreached(err error) bool {
	st := status.Convert(err)
	return st.Code() == codes.Unavailable && len(st.Details()) == 0
}

// explain turns what gRPC says into what a person can act on.
func (a *asking) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); !ok {
		return err // our own
	}
	var known *amendsv1.Error
	st := status.Convert(err)
	rpc := err
	err = amendsv1.FromError(err)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, amendsv1.ErrFilter), errors.Is(err, amendsv1.ErrPageToken):
		return &usageError{err}
	case unreached(rpc):
		return a.unreachable(st.Message())
	case st.Code() == codes.Unimplemented:
		return fmt.Errorf("%s does not offer this (%s): is it an older version?", a.addr, st.Message())
	case errors.Is(err, amendsv1.ErrUnauthenticated) && !a.known():
		return fmt.Errorf("%w (say who you are: set %s, or give --token-file or --tls-cert)", err, tokenEnv)
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s did not answer within %v (--timeout)", a.addr, a.timeout)
	}
	return err
}

// unreachable says why nobody answers, as far as gRPC's words tell.
func (a *asking) unreachable(said string) error {
	switch {
	case strings.Contains(said, "handshake failed"):
		return fmt.Errorf("%s and this program do not agree on TLS: see --tls and --tls-ca (%s)", a.addr, said)
	case strings.Contains(said, "server preface") && !a.encrypted():
		return fmt.Errorf("%s does not speak gRPC in plaintext: give --tls or --tls-ca if it speaks TLS (%s)", a.addr, said)
	}
	return fmt.Errorf("no coordinator answers at %s: run 'amends serve' there, or name another with --addr (%s)", a.addr, said)
}
