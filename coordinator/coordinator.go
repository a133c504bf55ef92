// Package coordinator drives global transactions to their end.
//
// A Coordinator on a store serves the gRPC services of package amendsv1:
// clients start sagas and TCC transactions, participants attend and receive
// their calls, auditors read. Embed one in a service and reach it through Conn,
// or serve it to others with Serve or Register:
//
//	c, err := coordinator.New(ctx, store, nil)
//	g.Go(func() error { return c.Run(ctx) })
//	client := sdk.NewClient(c.Conn(), nil)
package coordinator

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/converse"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/internal/forward"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// tracerName is the instrumentation scope of a coordinator's spans.
const tracerName = "github.com/amends-dev/amends/coordinator"

// maxHeaders bounds what is read of a request before it is known whose it is,
// in bytes.
const maxHeaders = 64 << 10

// Config holds what may be left out. Zero values stand for the defaults.
type Config struct {
	// Name tells coordinators apart in logs. Default: "coordinator".
	Name string
	// Address is where Serve, or a server with Register, is reached by the other
	// coordinators on the store and by clients, as host:port. Default: nowhere:
	// the coordinator serves in its process, or as the only one of its store.
	Address string
	// ClusterTLS is how the other coordinators on the store are dialled. Default:
	// in plaintext.
	ClusterTLS *tls.Config
	// Version is that of the program, for people who look at the cluster. At most
	// 255 bytes. Default: none.
	Version string
	// Workers is how many goroutines share the shards, each with commits of its
	// own. One makes the largest batches; several help where the database takes
	// long to commit and has cores to spare. Default 1.
	Workers int
	// LeaseTTL is how long a crash of this coordinator delays its transactions
	// on a store that others can open, but for a second. All coordinators on a
	// store should have the same. Default 10 s.
	LeaseTTL time.Duration
	// MaxLive bounds the unfinished transactions in memory; a start over it is
	// refused with sdk.ErrOverloaded and a delay. Default 100,000.
	MaxLive int
	// MaxPayload bounds a request's and a reply's payload, in bytes. Default
	// 1 MiB.
	MaxPayload int
	// StallAfter is how long a transaction may wait for a participant before it
	// counts as stalled: lists find it by that and by the service, and its audit
	// trail says so. Default 1 min; negative: never.
	StallAfter time.Duration
	// Retention is how long finished transactions are kept for audit. Default
	// 7 days; negative: for ever.
	Retention time.Duration
	// DrainTimeout bounds each part of the end of Run: other coordinators take
	// the shards, requests under way are answered, calls under way are, too.
	// Default 5 s.
	DrainTimeout time.Duration
	// Observers are told of every transition once it is durable, with its audit
	// events; not of one whose answer was lost with the coordinator. They hold
	// up the engine: they must not block, and change nothing.
	Observers []func(rec store.Record, events []store.Event)
	// Announce says what a transition tells the world outside. Its messages are
	// committed together with it, to the outbox of the store, which must have
	// one (sqlstore.Config.Outbox). It is called before the commit, which may
	// fail, and must not block. notify.Lifecycle is one. nil: nothing.
	Announce func(rec store.Record, events []store.Event) []store.Message
	// Auth stands before every service, those of Register included; only Conn
	// goes past it. Default: nobody is asked who they are, and all may do
	// everything.
	Auth *auth.Guard
	// Quota is what a namespace may take of this coordinator; it is asked at
	// every start, and must not block. A start over it is refused with
	// sdk.ErrOverloaded; what was started goes on. Default: Auth's, which are
	// those of an auth.File.
	Quota func(namespace string) auth.Quota
	// TracerProvider makes spans of starts, transitions and calls, in the traces
	// in which transactions were started; of others there are none. Default: the
	// program's own (otel.SetTracerProvider).
	TracerProvider trace.TracerProvider
	// TLS is how Serve talks, for example auth.ServerTLS. Default: plaintext.
	TLS *tls.Config
	// Logger takes what operators should know. Default slog.Default().
	Logger *slog.Logger
}

// Coordinator drives the transactions of one store. All methods are safe for
// concurrent use.
type Coordinator struct {
	cfg    Config
	engine *engine.Engine
	hub    *dispatch.Hub
	api    *api.Server
	seal   *auth.Seal
	front  *forward.Forwarder
	talks  *converse.Server // of own and guest
	own    *inProcess       // whoever uses it is trusted
	guest  *inProcess       // whoever uses it is asked for credentials

	serves serves
}

// New makes a coordinator on a store, which stays the caller's to close, after
// Run has returned. It reports every mistake in cfg at once.
func New(ctx context.Context, st store.Store, cfg *Config) (*Coordinator, error) {
	c := &Coordinator{talks: converse.New()}
	if cfg != nil {
		c.cfg = *cfg
	}
	if c.cfg.Logger == nil {
		c.cfg.Logger = slog.Default()
	}
	if c.cfg.Name == "" {
		c.cfg.Name = "coordinator"
	}
	if c.cfg.Auth == nil {
		c.cfg.Auth = auth.Open()
	}
	if c.cfg.TracerProvider == nil {
		c.cfg.TracerProvider = otel.GetTracerProvider()
	}
	owner := c.cfg.Name + "-" + uuid.NewString()[:8] // unique: leases are held by it
	eng, err := engine.New(ctx, st, c.engineConfig(owner))
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	c.engine = eng
	c.hub = dispatch.New(eng.Outcome, &dispatch.Config{Name: c.cfg.Name, Logger: c.cfg.Logger})
	eng.SetDispatcher(c.hub)
	c.seal = auth.NewSeal(owner, st.Secret)
	c.front = c.newFront(owner)
	c.api, err = api.New(eng, st, c.hub.Offers, &api.Config{
		MaxPayload: c.cfg.MaxPayload, Owner: owner, Cluster: eng, Caller: caller, Services: c.hub.Services, Logger: c.cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	if c.own, err = newInProcess(); err != nil {
		return nil, err
	}
	if c.guest, err = newInProcess(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Coordinator) engineConfig(owner string) *engine.Config {
	return &engine.Config{
		Owner: owner, Address: c.cfg.Address, Version: c.cfg.Version, Remote: c.remote,
		Quota: c.quota(), Tracer: c.cfg.TracerProvider.Tracer(tracerName), StallAfter: c.cfg.StallAfter,
		Observers: c.cfg.Observers, Announce: c.cfg.Announce, Workers: c.cfg.Workers, LeaseTTL: c.cfg.LeaseTTL,
		MaxLive: c.cfg.MaxLive, Retention: c.cfg.Retention, DrainTimeout: c.cfg.DrainTimeout, Logger: c.cfg.Logger,
	}
}

// quota is what the engine asks.
func (c *Coordinator) quota() func(namespace string) engine.Quota {
	of := c.cfg.Quota
	if of == nil {
		of = c.cfg.Auth.Quota
	}
	return func(namespace string) engine.Quota {
		q := of(namespace)
		return engine.Quota{Live: q.Live, Rate: q.StartsPerSecond, Burst: q.Burst}
	}
}

// Register adds the coordinator's services, with Config.Auth before them, to a
// gRPC server of the caller's, which should have been given
// grpc.MaxRecvMsgSize(c.MaxMessageSize()) and, in a cluster, a
// keepalive.EnforcementPolicy that lets other coordinators ping every 10 s. There
// every request is an RPC of its own, so that the server's interceptors see it:
// clients find that they cannot share streams, as they do with Serve.
func (c *Coordinator) Register(r grpc.ServiceRegistrar) {
	c.register(c.cfg.Auth.Trusting(c.seal).Registrar(r))
}

// register adds the services to r, which puts a Guard before them.
func (c *Coordinator) register(r grpc.ServiceRegistrar) {
	forwarding := c.front.Registrar(r)
	c.api.Register(forwarding)
	amendsv1.RegisterParticipantServiceServer(r, attendance{hub: c.hub})
}

// MaxMessageSize is the largest message that the services should let in, in
// bytes: with less, what is too large is refused without saying which limit.
func (c *Coordinator) MaxMessageSize() int { return c.api.MaxMessageSize() }

// attendance is the participants' service: the hub's, under gRPC's name.
type attendance struct {
	amendsv1.UnimplementedParticipantServiceServer
	hub *dispatch.Hub
}

// Attend serves one participant's stream.
func (a attendance) Attend(stream amendsv1.ParticipantService_AttendServer) error {
	who, _ := auth.FromContext(stream.Context()) // every stream comes through a guard
	return a.hub.Attend(who.Namespace, stream)
}

// caller is who asks, as handlers see it.
func caller(ctx context.Context) api.Caller {
	who, _ := auth.FromContext(ctx) // every request comes through a guard
	return api.Caller{
		Subject: who.Subject, Namespace: who.Namespace, Roles: who.Roles(), Namespaces: who.Namespaces(),
		Services: who.Services, Authenticated: who.Authenticated,
	}
}
