package sdk

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Bounds of what goes by conversations.
const (
	crowd        = 4        // requests under way on a connection, from which on they share a stream
	maxAsk       = 64 << 10 // bytes; larger requests go alone, for they would hold up others
	maxLines     = 16       // namespaces with a stream of their own
	talkFor      = 10 * time.Second
	reopenAfter  = time.Second // at the earliest: nobody asks for streams more often
	speechless   = time.Minute // until a coordinator that knows no conversations is asked again
	asksPerBatch = 256
)

// conversations is a connection on which the requests of many callers to
// TransactionService share a stream, in batches. A request that is alone goes
// alone, and so does one that is large, or whose context has metadata of its
// own, or while there is no stream: a coordinator or a proxy that has none is
// asked as ever.
//
// A stream takes requests for ten seconds, so that new credentials, a balancer
// of requests and a proxy's limits of time count soon; then there is another.
type conversations struct {
	*grpc.ClientConn
	busy atomic.Int64 // requests under way, shared or alone

	mu    sync.Mutex
	lines map[string]*line // by namespace
}

// line is what takes the requests of one namespace.
type line struct {
	now     *conversation // nil: none just now
	opening bool
	next    time.Time // when another may be opened
}

func newConversations(conn *grpc.ClientConn) *conversations {
	return &conversations{ClientConn: conn, lines: map[string]*line{}}
}

// shared is conn, whose callers share streams if that is known to be safe: what
// stands around a connection sees requests, and would not see these.
func shared(conn grpc.ClientConnInterface) grpc.ClientConnInterface {
	if plain, ok := conn.(*grpc.ClientConn); ok {
		return newConversations(plain)
	}
	return conn
}

// unary is a connection whose requests never share a stream.
type unary struct{ grpc.ClientConnInterface }

// Invoke implements grpc.ClientConnInterface.
func (u unary) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return u.ClientConnInterface.Invoke(ctx, method, args, reply, append(opts, grpc.EmptyCallOption{})...) // which goes alone
}

const ofTransactions = "/amends.v1.TransactionService/"

// Invoke implements grpc.ClientConnInterface.
func (c *conversations) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	name, ours := strings.CutPrefix(method, ofTransactions)
	namespace, plain := plainly(ctx, opts)
	if !ours || !plain {
		return c.ClientConn.Invoke(ctx, method, args, reply, opts...)
	}
	defer c.busy.Add(-1)
	if c.busy.Add(1) >= crowd {
		if t := c.open(namespace); t != nil {
			if answered, err := t.ask(ctx, name, args, reply); answered {
				return err
			}
		}
	}
	return c.ClientConn.Invoke(ctx, method, args, reply, opts...)
}

// plainly tells whether a request has nothing of its own beside its namespace.
func plainly(ctx context.Context, opts []grpc.CallOption) (namespace string, plain bool) {
	for _, o := range opts {
		if _, static := o.(grpc.StaticMethodCallOption); !static {
			return "", false
		}
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	switch named := md[amendsv1.NamespaceHeader]; {
	case len(md) == 0:
		return "", true
	case len(md) == 1 && len(named) == 1:
		return named[0], true
	}
	return "", false
}

// open returns the conversation of a namespace. Where there is none it begins
// one, which takes requests once it is welcome.
func (c *conversations) open(namespace string) *conversation {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lines[namespace]
	if l == nil {
		if len(c.lines) >= maxLines {
			return nil
		}
		l = &line{}
		c.lines[namespace] = l
	}
	if l.now == nil && !l.opening && time.Now().After(l.next) {
		l.opening, l.next = true, time.Now().Add(reopenAfter)
		var alone errgroup.Group // nobody waits for it: it ends by itself, or with its connection
		alone.Go(func() error { return c.talk(namespace, l) })
	}
	return l.now
}

// talk has one conversation, until its stream is over.
func (c *conversations) talk(namespace string, l *line) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if namespace != "" {
		ctx = withNamespace(ctx, namespace)
	}
	t := &conversation{wake: make(chan struct{}, 1), pending: map[uint64]*pending{}}
	t.over = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.now == t {
			l.now = nil
		}
	}
	giveUp := time.AfterFunc(welcomeTimeout, cancel)
	err := t.open(ctx, c.ClientConn)
	giveUp.Stop() // too late: the stream is over, as read will see
	if c.opened(l, t, err); err != nil {
		return err
	}
	old := time.AfterFunc(talkFor, t.retire)
	defer old.Stop()
	var g errgroup.Group
	g.Go(func() error { return t.write(ctx) })
	t.end(t.read())
	cancel()
	return g.Wait()
}

// opened notes how the opening of a line's next conversation went.
func (c *conversations) opened(l *line, t *conversation, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.opening = false
	switch {
	case err == nil:
		l.now = t
	case status.Code(err) == codes.Unimplemented:
		l.next = time.Now().Add(speechless)
	}
}
