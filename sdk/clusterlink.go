package sdk

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

const (
	connectTimeout = 5 * time.Second
	maxMisses      = 3 // polls without a word, after which the connection is given up
	firstPoll      = 100 * time.Millisecond
	window         = 1 << 20          // bytes that a member may send ahead, as a coordinator's own
	linger         = 30 * time.Second // for what is under way on a connection that is needed no more
)

// origin is how a link came to be.
type origin int

const (
	given      origin = iota // an address of Dial: kept until Close
	advertised               // a member's address
	hunted                   // a given address once more, for whoever else is behind it
)

// link is a connection to an address. Behind it is a member, though not always
// the same one.
type link struct {
	address string
	origin  origin
	conn    *grpc.ClientConn
	talks   *conversations // over conn
	life    context.Context
	end     context.CancelFunc
	again   chan struct{} // asks for a poll now
	up      atomic.Bool   // it answered when it was last asked; changed under Cluster.mu
	closing time.Time     // when the connection is closed; set before life ends

	// Under Cluster.mu.
	asked  bool   // it has answered, or failed to
	said   string // who the members are, when it was last asked
	name   string // of the member that answered, or should; empty: none has, or an old one that does not say
	chosen bool   // its member is reached by it
	found  bool   // a hunted one that led to somebody
	out    bool   // whoever answered is no member itself
	misses int    // polls without a word
}

// add makes a link, to the member of that name as far as is known. Called with mu
// held.
func (c *Cluster) add(address string, from origin, name string) error {
	opts := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: c.cfg.PollInterval},
			MinConnectTimeout: connectTimeout,
		}),
		// Fixed, so that gRPC does not ping for a better one at every request.
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		// A name may stand for many members: not everybody connects to the first.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}`),
	}
	if isLoopback(address) {
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	conn, err := grpc.NewClient(address, append(opts, c.cfg.Options...)...)
	if err != nil {
		return err
	}
	l := &link{address: address, origin: from, name: name, conn: conn, talks: newConversations(conn), again: make(chan struct{}, 1)}
	l.life, l.end = context.WithCancel(c.life)
	c.links = append(c.links, l)
	c.polls.Go(func() error {
		c.watch(l)
		return nil
	})
	return nil
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// watch polls a link until it is dropped.
func (c *Cluster) watch(l *link) {
	for failures, calm := 0, 0; ; {
		members, err := l.poll(min(max(c.cfg.PollInterval, time.Second), connectTimeout))
		if calm++; c.heard(l, members, err) {
			calm = 0
		}
		wait := c.pace(calm)
		if l.up.Load() {
			failures = 0
		} else {
			failures++
			wait = min(wait, backoff(failures))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.again:
			timer.Stop()
		case <-l.life.Done():
			timer.Stop()
			c.afterHunt(l)
			sleep(c.life, time.Until(l.closing))
			_ = l.conn.Close() // an error says that it is closed already
			return
		}
	}
}

// pace is the time until the next poll after so many that brought nothing new:
// when members come and go, more do so soon, as in a cluster that is started.
func (c *Cluster) pace(calm int) time.Duration {
	if calm > 10 {
		return c.cfg.PollInterval
	}
	return min(firstPoll<<calm, c.cfg.PollInterval)
}

// poll asks the member behind a link who the members are.
func (l *link) poll(timeout time.Duration) ([]*amendsv1.Member, error) {
	ctx, cancel := context.WithTimeout(l.life, timeout)
	defer cancel()
	if !l.up.Load() {
		l.conn.ResetConnectBackoff() // the pace is ours
	}
	resp, err := amendsv1.NewClusterServiceClient(l.conn).ListMembers(ctx, &amendsv1.ListMembersRequest{})
	return resp.GetMembers(), err
}

// afterHunt goes on with the search, in its time, when l found nobody new.
func (c *Cluster) afterHunt(l *link) {
	c.mu.Lock()
	wait := time.Until(c.hunt.next)
	c.mu.Unlock()
	if l.origin != hunted || !sleep(c.life, wait) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.publish()
}

// check has a link polled now.
func (l *link) check() {
	select {
	case l.again <- struct{}{}:
	default: // somebody else has asked for it
	}
}

// hear notes what a poll says about its link, and reports whether the members
// are others than before. Called with Cluster.mu held.
func (l *link) hear(members []*amendsv1.Member, err error) (news bool) {
	l.asked = true
	var said strings.Builder
	for _, m := range members {
		fmt.Fprintf(&said, "%s %t\n", m.GetName(), m.GetDraining())
	}
	news, l.said = said.String() != l.said, said.String()
	up, misses := false, 0
	switch status.Code(err) {
	case codes.OK:
		up = true
		self := slices.IndexFunc(members, (*amendsv1.Member).GetSelf)
		l.name, l.out = "", self < 0 && len(members) > 0
		if self >= 0 {
			l.name = members[self].GetName()
		}
	case codes.Unavailable, codes.Canceled:
	case codes.DeadlineExceeded:
		misses = l.misses + 1
	default: // whoever refuses is there: one older than ListMembers, or one that does not know us
		up = true
	}
	l.misses = misses
	l.up.Store(up)
	return news
}

// serves reports a link that takes requests. Called with Cluster.mu held.
func (l *link) serves() bool { return l.chosen && l.up.Load() }

// awaitUp waits until a link answers again and reports false when ctx ended
// first, or the link.
func (c *Cluster) awaitUp(ctx context.Context, l *link) bool {
	for {
		replaced := c.now.Load().replaced
		if l.up.Load() {
			return true
		}
		select {
		case <-replaced:
		case <-l.life.Done():
			return false
		case <-ctx.Done():
			return false
		}
	}
}
