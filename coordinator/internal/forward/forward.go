// Package forward sends a request to the member of the cluster that owns what it
// is about, so that clients need not know who does: every member serves every
// request.
//
// A Forwarder stands between the Guard and the handlers, which do not know of
// it. It takes one hop only: what was forwarded is answered where it arrives,
// with amendsv1.ErrNotOwner if need be. While nobody owns a shard, or its owner
// is not reached, a request waits and is sent again, which is safe: a start has
// its gid, a verb its request_id (the Forwarder gives them to those that have
// none), and everything else can be repeated by its nature.
package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// DefaultPatience is how long a request waits for its shard's owner, 15 s.
const DefaultPatience = 15 * time.Second

// Bounds that nobody has needed to change.
const (
	maxHeld        = 10_000 // requests that wait for an owner at a time
	firstStep      = 10 * time.Millisecond
	lastStep       = 500 * time.Millisecond
	refreshTimeout = 2 * time.Second
	lookEvery      = 250 * time.Millisecond // whether requests under way are where they belong
)

// Cluster is what the Forwarder needs of the engine. None of it is slow but
// Refresh, and all of it works also when the engine has stopped.
type Cluster interface {
	// Members are the coordinators that are alive, as far as is known.
	Members() []store.Member
	// Route returns the owner of a key's shard, and whether that is the engine
	// itself. The zero Member: nobody, just now.
	Route(key string) (owner store.Member, here bool)
	// Refresh reads anew who is a member and who owns what.
	Refresh(ctx context.Context) error
}

// Config is how a Forwarder behaves. What is marked as required has no default.
type Config struct {
	// Self is the Name of the Member that this is. Required.
	Self string
	// Namespace is that of a request. Required.
	Namespace func(ctx context.Context) string
	// Forwarded tells whether another member has forwarded a request. Required.
	Forwarded func(ctx context.Context) bool
	// Vouch returns the context of a request that is sent to another member: it
	// says there who calls. Required.
	Vouch func(ctx context.Context, to, method string, req proto.Message) (context.Context, error)
	// Private tells whether metadata of this name does not go along. Required.
	Private func(name string) bool
	// TLS is how the other members are dialled. nil: in plaintext.
	TLS *tls.Config
	// Patience is how long a request waits for an owner, unless its caller's
	// deadline comes first. Default DefaultPatience.
	Patience time.Duration
	// Logger takes what operators should know. Default slog.Default().
	Logger *slog.Logger
}

// Forwarder sends requests to where they belong. All methods are safe for
// concurrent use.
type Forwarder struct {
	cfg     Config
	cluster Cluster
	conns   *conns
	held    atomic.Int64    // requests that wait for an owner
	ending  context.Context // ends with End
	end     context.CancelFunc

	sent, repeated, failed atomic.Uint64

	mu      sync.Mutex
	flights map[*flight]struct{}
}

// New returns a Forwarder, which is closed by the end of Run.
func New(c Cluster, cfg Config) *Forwarder {
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	f := &Forwarder{
		cfg: cfg, cluster: c, conns: newConns(cfg.TLS, cfg.Logger), flights: map[*flight]struct{}{},
	}
	f.ending, f.end = context.WithCancel(context.Background())
	return f
}

// Stats is what a Forwarder has done since it was made.
type Stats struct {
	Sent     uint64 // requests to other members, repetitions included
	Repeated uint64 // those of them, and of requests that were answered here, that were not the first
	Failed   uint64 // requests that found no owner in time
}

// Stats counts.
func (f *Forwarder) Stats() Stats {
	return Stats{Sent: f.sent.Load(), Repeated: f.repeated.Load(), Failed: f.failed.Load()}
}

// End ends requests that wait, for a transaction's end or for an owner, with an
// ErrNotOwner: their callers ask another member. It is for a member that is about
// to stop.
func (f *Forwarder) End() { f.end() }

// errEnding is what those hear who wait when End is called.
var errEnding = amendsv1.ErrNotOwner.With("this coordinator is stopping: ask another one")

// errMoved ends a request to a member that is not the owner any more.
var errMoved = errors.New("forward: the shard has another owner now")

// unary is a grpc.UnaryServerInterceptor.
func (f *Forwarder) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	r, routed := routes[info.FullMethod]
	if !routed {
		return next(ctx, req)
	}
	if r.waits {
		var free func()
		ctx, free = f.untilEnd(ctx)
		defer free()
	}
	resp, err := f.route(ctx, &request{route: r, method: info.FullMethod, msg: req.(proto.Message), next: next})
	if err != nil && r.waits && errors.Is(context.Cause(ctx), errEnding) {
		return nil, errEnding
	}
	return resp, err
}

// untilEnd is a context that End ends, too.
func (f *Forwarder) untilEnd(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := f.onEnd(func() { cancel(errEnding) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// request is one that may belong to another member.
type request struct {
	route
	method string
	msg    proto.Message
	next   grpc.UnaryHandler
	to     target
}

// nameless tells whether the request is a verb that would not be known again if
// it was repeated, though it may have been carried out.
func (r *request) nameless() bool {
	verb, ok := r.msg.(interface {
		GetRequestId() string
		GetValidateOnly() bool
	})
	return ok && verb.GetRequestId() == "" && !verb.GetValidateOnly()
}

func (f *Forwarder) route(ctx context.Context, r *request) (any, error) {
	if f.cfg.Forwarded(ctx) { // one hop only
		return r.next(ctx, r.msg)
	}
	if err := r.complete(f, f.cfg.Namespace(ctx), r.msg); err != nil {
		return nil, err
	}
	r.to = r.about(f.cfg.Namespace(ctx), r.msg)
	if r.method == amendsv1.TransactionService_WaitTransaction_FullMethodName {
		return f.wait(ctx, r)
	}
	if !r.to.known() {
		return r.next(ctx, r.msg)
	}
	until := time.Now().Add(waitOf(r.msg))
	for p := (patience{f: f}); ; {
		resp, err := f.once(ctx, r)
		if !errors.Is(err, amendsv1.ErrNotOwner) || r.nameless() {
			return resp, err
		}
		if err := p.wait(ctx, err); err != nil {
			return nil, err
		}
		if waitOf(r.msg) > 0 {
			r = r.waiting("wait", time.Until(until))
		}
	}
}

// once asks whoever owns the request's target just now. ErrNotOwner: it can be
// repeated.
func (f *Forwarder) once(ctx context.Context, r *request) (any, error) {
	owner, here := r.to.owner(f)
	switch {
	case here:
		return r.next(ctx, r.msg)
	case owner.Name == "":
		return nil, amendsv1.ErrNotOwner.With("no coordinator owns the transaction's shard just now; try again")
	case owner.Address == "" && r.to.member != "": // which stays so
		return nil, amendsv1.ErrIllegalVerb.With("coordinator %s says nowhere where it is reached: ask it itself, "+
			"or start it with an address", owner.Name)
	case owner.Address == "" || owner.Name == f.cfg.Self:
		return nil, amendsv1.ErrNotOwner.With("coordinator %s owns the transaction's shard, and says nowhere where it is reached", owner.Name)
	}
	return f.send(ctx, r, owner)
}

// Do sends a request of this process to where it belongs, as Registrar does with
// those of callers, and returns the answer. ctx names the caller as a handler's
// does. What belongs here is for handle.
func (f *Forwarder) Do(ctx context.Context, method string, req proto.Message, handle grpc.UnaryHandler) (proto.Message, error) {
	r, routed := routes[method]
	if !routed {
		return nil, fmt.Errorf("forward: %s is never forwarded", method)
	}
	resp, err := f.route(ctx, &request{route: r, method: method, msg: req, next: handle})
	if err != nil {
		return nil, err
	}
	return resp.(proto.Message), nil
}
