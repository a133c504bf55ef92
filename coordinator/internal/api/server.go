// Package api is the coordinator's gRPC surface for applications and for
// people: TransactionService, AdminService, OperatorService and ClusterService.
// Its handlers are thin: they check what comes in, ask the engine or the store,
// and put the answer on the wire.
//
// It is the boundary of namespaces, too: every gid that comes in becomes a key
// (wire.Key) of the caller's namespace, every one that goes out is a gid again,
// and every list and count is of that namespace. What is behind the handlers
// knows keys only.
//
// Every error that leaves it carries an ErrorInfo (package amendsv1), except
// where a call ended with its own context.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/grpc"
)

// DefaultMaxPayload is the most bytes of one payload, 1 MiB.
const DefaultMaxPayload = 1 << 20

// Engine is what the handlers need of the engine. A gid is a key, here and
// below, and a record's namespace is that of its key. Errors are those of
// package amendsv1, of package store, or the context's own.
type Engine interface {
	Operator

	// StartSaga stores a saga durably; created is false when it was there.
	StartSaga(ctx context.Context, gid string, d *saga.Definition, labels map[string]string) (
		rec store.Record, created bool, err error)
	// Full reports whether a start of gid is to be refused as overloaded before
	// anything else is looked at. It is cheap, and counts what it refuses.
	Full(gid string) bool
	// BeginTCC stores a TCC transaction durably; created is false when it was there.
	BeginTCC(ctx context.Context, gid string, d *tcc.Definition, labels map[string]string) (
		rec store.Record, created bool, err error)
	// Try registers a branch durably, calls its try and waits for the reply.
	Try(ctx context.Context, gid string, b tcc.Branch) (reply []byte, err error)
	// BeginTry is BeginTCC, with a branch in it, and then Try.
	BeginTry(ctx context.Context, gid string, d *tcc.Definition, labels map[string]string, b tcc.Branch) (reply []byte, err error)
	// Commit decides durably to confirm.
	Commit(ctx context.Context, gid string) (store.Record, error)
	// Abort decides durably to turn back. Actor and reason go into the trail.
	Abort(ctx context.Context, gid, actor, reason string) (store.Record, error)
	// Get returns a transaction with its definition and state.
	Get(ctx context.Context, gid string) (store.Record, error)
	// Wait returns when the transaction has finished or is parked, or with
	// the context's error.
	Wait(ctx context.Context, gid string) (store.Record, error)
	// Changed returns a channel from which can be received once gid makes a
	// durable transition on this coordinator, and a function that gives it back.
	Changed(gid string) (<-chan store.Record, func())
}

// Config is how a Server behaves; nil and zero values stand for the defaults.
type Config struct {
	MaxPayload int           // most bytes of one payload; 1 MiB
	WatchPoll  time.Duration // how often a watch looks without being woken; 1 s
	Owner      string        // by which this coordinator holds its leases; empty: none of them are its own
	Cluster    Cluster       // the others; nil: there are none
	Logger     *slog.Logger  // slog.Default()

	// Caller says who asks; it is called more than once for a request. nil:
	// nobody is asked who they are, everybody may do everything, and the
	// namespace is that of the header amendsv1.NamespaceHeader.
	Caller func(ctx context.Context) Caller
	// Services are the participants of a namespace that are connected, or have
	// calls waiting for them, by name. nil: none.
	Services func(namespace string) []dispatch.Service
}

// Cluster is what the handlers need to know of the cluster, and to do in it.
type Cluster interface {
	// Members are the coordinators that are alive, this one among them, by name.
	Members() []store.Member
	// Refresh reads anew who they are.
	Refresh(ctx context.Context) error
	// Drain has this coordinator give its shards to the others and take none,
	// and returns when it has none any more, or with the context's error.
	Drain(ctx context.Context) error
	// Undrain lets it take shards again.
	Undrain(ctx context.Context) error
}

func (c *Config) withDefaults() (Config, error) {
	var cfg Config
	if c != nil {
		cfg = *c
	}
	var errs []error
	if cfg.MaxPayload < 0 {
		errs = append(errs, fmt.Errorf("api: MaxPayload is %d, want 0 (1 MiB) or more", cfg.MaxPayload))
	}
	if cfg.WatchPoll < 0 {
		errs = append(errs, fmt.Errorf("api: WatchPoll is %v, want 0 (1 s) or more", cfg.WatchPoll))
	}
	if cfg.MaxPayload == 0 {
		cfg.MaxPayload = DefaultMaxPayload
	}
	if cfg.WatchPoll == 0 {
		cfg.WatchPoll = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Caller == nil {
		cfg.Caller = anybody
	}
	if cfg.Services == nil {
		cfg.Services = func(string) []dispatch.Service { return nil }
	}
	return cfg, errors.Join(errs...)
}

// Server holds the handlers. It is safe for concurrent use and has no state of
// its own.
type Server struct {
	engine Engine
	store  store.Store
	offers func(namespace, action string) (serviceKnown, actionKnown bool)
	cfg    Config
}

// New returns a Server. offers tells what the participants that are connected
// now perform; nil when that is not known. A nil cfg means the defaults; the
// error joins every value of it that makes no sense.
func New(e Engine, st store.Store, offers func(namespace, action string) (serviceKnown, actionKnown bool), cfg *Config) (
	*Server, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if offers == nil {
		offers = func(string, string) (bool, bool) { return false, false }
	}
	return &Server{engine: e, store: st, offers: offers, cfg: c}, nil
}

// Register adds the services to a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	amendsv1.RegisterTransactionServiceServer(r, &transactions{Server: s})
	amendsv1.RegisterAdminServiceServer(r, &admin{Server: s})
	amendsv1.RegisterOperatorServiceServer(r, &operator{Server: s})
	amendsv1.RegisterClusterServiceServer(r, &cluster{Server: s})
}

// MaxMessageSize is what to give to grpc.MaxRecvMsgSize, in bytes. A saga's
// payloads may be four times MaxPayload together; this leaves room for twice as
// much, for names and for a batch of outcomes, so that what is too large is told
// so by name, and only what is far too large by gRPC.
func (s *Server) MaxMessageSize() int { return 8*s.cfg.MaxPayload + 4<<20 }
