package coordinator

import (
	"context"
	"fmt"
	"math"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/amends-dev/amends/coordinator/auth"
)

// Conn is a connection to this coordinator that stays in the process. Whoever
// uses it is trusted: it has every role, and its subject is "in-process". It
// works while Run does.
func (c *Coordinator) Conn() grpc.ClientConnInterface { return c.own.conn }

// GuardedConn is like Conn, but Config.Auth stands before it: for gateways in
// the process that pass on requests of others, with their credentials: tokens
// as metadata, and certificates by auth.ClientCertificates.
func (c *Coordinator) GuardedConn() grpc.ClientConnInterface { return auth.Carry(c.guest.conn) }

// inProcess is a connection that needs no network.
type inProcess struct {
	lis  *bufconn.Listener
	conn *grpc.ClientConn
}

func newInProcess() (*inProcess, error) {
	p := &inProcess{lis: bufconn.Listen(1 << 20)}
	conn, err := grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	p.conn = conn
	return p, nil
}
