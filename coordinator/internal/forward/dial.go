package forward

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const (
	dialTimeout   = 3 * time.Second  // of a machine that answers nothing at all
	redialAfter   = time.Second      // at most
	forgetAfter   = time.Minute      // connections to those that are no members any more
	pingEvery     = 10 * time.Second // of silence while requests are under way; gRPC pings no more often
	pingTimeout   = 3 * time.Second  // then a link that was cut without a word is given up
	complainEvery = 10 * time.Second // about one member
	window        = 1 << 20          // bytes that a member may send ahead, as a coordinator's own
)

// conns are the connections to other members, by address.
type conns struct {
	tls *tls.Config
	log *slog.Logger

	mu     sync.Mutex
	all    map[string]*conn
	closed bool
}

// conn is one connection. It connects when it is first used.
type conn struct {
	*grpc.ClientConn
	used       time.Time
	complained time.Time
}

func newConns(conf *tls.Config, log *slog.Logger) *conns {
	return &conns{tls: conf, log: log, all: map[string]*conn{}}
}

func (c *conns) to(address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.all[address]; known != nil {
		known.used = time.Now()
		return known.ClientConn, nil
	}
	if c.closed {
		return nil, errEnding
	}
	made, err := grpc.NewClient("dns:///"+address, c.options()...)
	if err != nil {
		return nil, amendsv1.ErrNotOwner.With("a coordinator says that it is reached at %q, which is no address: %v", address, err)
	}
	c.all[address] = &conn{ClientConn: made, used: time.Now()}
	return made, nil
}

func (c *conns) options() []grpc.DialOption {
	creds := insecure.NewCredentials()
	if c.tls != nil {
		creds = credentials.NewTLS(c.tls)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialAfter},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
	}
}

// complain logs, now and then, that a member is not reached.
func (c *conns) complain(m store.Member, err error) {
	c.mu.Lock()
	known := c.all[m.Address]
	quiet := known == nil || time.Since(known.complained) < complainEvery
	if !quiet {
		known.complained = time.Now()
	}
	c.mu.Unlock()
	if !quiet {
		c.log.Warn("amends: another coordinator is not reached: its requests wait", "member", m.Name, "address", m.Address, "err", err)
	}
}

// forget closes connections to those that are no members any more.
func (c *conns) forget(members []store.Member) {
	alive := make(map[string]bool, len(members))
	for _, m := range members {
		alive[m.Address] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for address, known := range c.all {
		if !alive[address] && time.Since(known.used) > forgetAfter {
			delete(c.all, address)
			_ = known.Close() // says only that it is closed already
		}
	}
}

func (c *conns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for address, known := range c.all {
		delete(c.all, address)
		_ = known.Close() // says only that it is closed already
	}
}

// outgoing is the context of a request that goes on to another member, with the
// metadata that came with it: all but credentials, and what gRPC sets anew.
func (f *Forwarder) outgoing(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx) // a copy
	out := metadata.MD{}
	for name, values := range in {
		if !f.cfg.Private(name) && !ofTransport(name) {
			out[name] = values
		}
	}
	return metadata.NewOutgoingContext(ctx, out)
}

func ofTransport(name string) bool {
	switch name {
	case "content-type", "user-agent", "te", "connection", "host":
		return true
	}
	return strings.HasPrefix(name, ":") || strings.HasPrefix(name, "grpc-")
}
