package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Defaults and limits of DialConfig.
const (
	DefaultPollInterval = 5 * time.Second
	DefaultRepeatFor    = 30 * time.Second
	minPollInterval     = 10 * time.Millisecond
)

// DialConfig configures Dial. A nil *DialConfig is all defaults.
type DialConfig struct {
	// Options are of every connection, those to members that the given ones name
	// included: credentials (grpc.WithTransportCredentials, and BearerToken in
	// grpc.WithPerRPCCredentials), interceptors, limits. Without them loopback
	// addresses are spoken to in plaintext, and others are an error.
	Options []grpc.DialOption
	// PollInterval is how often each member is asked who the members are: so long
	// until one that joins is known, while nothing else changes. After a change, as
	// at the beginning, it is asked after 0.2 s, 0.4 s and so on, up to this. One
	// that fails is asked at once, and then with backoff up to this. 0: 5 s, at
	// least 10 ms.
	PollInterval time.Duration
	// RepeatFor bounds how long a request that finds no member is repeated where
	// its context would let it go on for longer. 0: 30 s.
	RepeatFor time.Duration
	Logger    *slog.Logger // nil: slog.Default()
}

func (c *DialConfig) withDefaults() (DialConfig, error) {
	var cfg DialConfig
	if c != nil {
		cfg = *c
	}
	var errs []error
	if cfg.PollInterval == 0 {
		cfg.PollInterval = DefaultPollInterval
	}
	if cfg.PollInterval < minPollInterval {
		errs = append(errs, fmt.Errorf("PollInterval is %s, want 0 (5 s) or at least %s", cfg.PollInterval, minPollInterval))
	}
	if cfg.RepeatFor == 0 {
		cfg.RepeatFor = DefaultRepeatFor
	}
	if cfg.RepeatFor < 0 {
		errs = append(errs, fmt.Errorf("RepeatFor is %s, want 0 (30 s) or more", cfg.RepeatFor))
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Options = slices.Clone(cfg.Options)
	return cfg, errors.Join(errs...)
}

// Cluster is a connection to all coordinators of a cluster, of one or of many.
// Give it to NewClient and Participant.Run in place of a *grpc.ClientConn. It may
// be used by many goroutines.
//
// It learns the members from those it was given, and follows those that come and
// go. A request goes to any member: each passes it on to the one that owns the
// transaction. A member that cannot be asked is left out until it answers again,
// and what it was asked is repeated at another, if twice is once: starts (they
// have a gid), tries, commits, aborts, waits, reads, and an operator's acts with a
// request_id. Anything else is repeated only if it certainly was not delivered.
// Only Unavailable is repeated, no sooner than its RetryInfo says, and never past
// the context's deadline.
//
// A participant that runs over a Cluster keeps a stream to every member.
//
// Members are reached at the addresses that they advertise. One that advertises
// none, or one that leads nowhere from here (containers, NAT), is looked for
// behind the given addresses, of which each may be a load balancer of
// connections; behind a balancer of requests members have to advertise.
type Cluster struct {
	cfg   DialConfig
	given []string
	log   *slog.Logger

	life  context.Context // of the polls
	end   context.CancelFunc
	polls errgroup.Group // one goroutine a link; Close waits for them

	turn atomic.Uint64        // requests take the members in turn
	now  atomic.Pointer[view] // what requests and participants see

	mu     sync.Mutex
	closed bool
	links  []*link
	known  map[string]knownMember // by name
	silent map[string]bool        // addresses whose failure was logged

	failure error // the last one
	hunt    hunt
}

// view is what a Cluster is made of at one time. It does not change.
type view struct {
	ready    []*link       // take requests
	attend   []*link       // lead to a member each
	failure  error         // of whoever failed last; for whoever finds nobody ready
	closed   bool          // by Close
	replaced chan struct{} // closed when another view holds
}

// errClosed ends requests of a closed Cluster.
var errClosed = status.Error(codes.Canceled, "sdk: the cluster is closed")

// Dial returns a connection to the cluster whose members, some or all, have these
// addresses (host:port, or any target of gRPC). It connects in the background, by
// a goroutine a member that asks it every PollInterval until Close; it fails only
// for what can never work: no addresses, a configuration that makes no sense.
func Dial(addresses []string, cfg *DialConfig) (*Cluster, error) {
	c := &Cluster{known: map[string]knownMember{}, silent: map[string]bool{}}
	var errs []error
	var err error
	if c.cfg, err = cfg.withDefaults(); err != nil {
		errs = append(errs, err)
	}
	c.log = c.cfg.Logger
	if len(addresses) == 0 {
		errs = append(errs, errors.New("no addresses: give that of one coordinator or more"))
	}
	for _, a := range addresses {
		if !slices.Contains(c.given, a) {
			c.given = append(c.given, a)
		}
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.now.Store(&view{replaced: make(chan struct{})})
	c.mu.Lock()
	for _, a := range c.given {
		if err := c.add(a, given, ""); err != nil {
			errs = append(errs, err)
		}
	}
	c.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("sdk: dial: %w", errors.Join(err, c.Close()))
	}
	return c, nil
}

// Close ends all connections, and with them the requests under way. End what
// uses it first, a participant above all, which then drains. Closing again does
// nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	c.closed = true
	for _, l := range slices.Clone(c.links) {
		c.drop(l)
	}
	c.publish()
	c.mu.Unlock()
	c.end()
	return c.polls.Wait()
}

// Invoke implements grpc.ClientConnInterface. See Cluster for what is repeated.
// When a request was repeated, errors.Is finds ErrUnavailable in whatever error it
// ends with: an attempt before may have been carried out.
func (c *Cluster) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ask(ctx, repeatable(method, args), opts, func(l *link, opts []grpc.CallOption) error {
		return l.talks.Invoke(ctx, method, args, reply, opts...)
	})
}

// NewStream implements grpc.ClientConnInterface: the stream is one member's, and
// ends with it.
func (c *Cluster) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (stream grpc.ClientStream, err error) {
	err = c.ask(ctx, true, opts, func(l *link, opts []grpc.CallOption) error { // nothing is sent before it is open
		var err error
		stream, err = l.conn.NewStream(ctx, desc, method, opts...)
		return err
	})
	return stream, err
}
