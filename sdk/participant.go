package sdk

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/outbox"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// Defaults and limits of ParticipantConfig.
const (
	DefaultConcurrency  = 64
	DefaultDrainTimeout = 30 * time.Second
	maxConcurrency      = 10_000
)

// ParticipantConfig configures a Participant. A nil *ParticipantConfig is all
// defaults.
type ParticipantConfig struct {
	// Namespace is the one whose transactions it serves; empty: the only one of
	// the credentials, else the default one. Gids are unique within a namespace,
	// and the guard's claims hold this name: give it wherever one database serves
	// more than one, to all instances alike, and do not change it while transactions
	// are under way.
	Namespace    string
	Instance     string         // tells instances of one service apart, in logs; empty: host name and process id
	Concurrency  int            // handlers that run at once, in all; as many calls wait on each stream; 0: 64, at most 10,000
	DrainTimeout time.Duration  // how long Run waits at its end for running handlers; 0: 30 s
	SkipMigrate  bool           // Run does not create the guard's tables: outbox.Migrate was called
	Outbox       *outbox.Outbox // woken after the commit of a handler that wrote to it; may be nil
	Purge        *PurgeConfig   // when the guard's claims are deleted; nil: 72 h after the transaction's end
	Logger       *slog.Logger   // nil: slog.Default()

	// TracerProvider makes a span of each call, in the trace that the transaction
	// was started in; nil: OpenTelemetry's global one.
	TracerProvider trace.TracerProvider
}

func (c *ParticipantConfig) withDefaults() ParticipantConfig {
	var cfg ParticipantConfig
	if c != nil {
		cfg = *c
	}
	if cfg.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown host" // it is only for logs
		}
		cfg.Instance = host + "/" + strconv.Itoa(os.Getpid())
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg
}

// Participant is one instance of a service that performs actions. Register
// handlers with HandleSaga, HandleTCC and HandleCheck, then Run it.
type Participant struct {
	service string
	cfg     ParticipantConfig
	purging PurgeConfig
	guard   guard
	log     *slog.Logger
	tracer  trace.Tracer

	mu      sync.Mutex
	actions map[string]*action
	running bool

	slots chan struct{}  // one for each handler that runs
	calls sync.WaitGroup // handlers that run or wait for a slot
}

// action is what a participant does for one name.
type action struct {
	name string
	with string // "HandleSaga", "HandleTCC" or "HandleCheck", for errors
	ops  map[txn.Op]handler

	usual []byte // the guard's record of a first phase that replies the zero value; nil: that cannot be encoded

	check func(ctx context.Context, gid string) (CheckResult, error) // nil: it is none
}

// handler is a user's function without its types. did is what the first phase
// replied.
type handler func(ctx context.Context, tx *sql.Tx, payload, did []byte) ([]byte, error)

// NewParticipant returns a participant of a service, "accounts", whose handlers
// run in transactions of db. It panics when an argument makes no sense: it is
// called while a program is put together.
func NewParticipant(service string, db *sql.DB, dialect *outbox.Dialect, cfg *ParticipantConfig) *Participant {
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("db is nil: the guard and the handlers need the service's database"))
	}
	if dialect == nil {
		errs = append(errs, errors.New("dialect is nil: give the one of the database, for example outbox.SQLite"))
	}
	var box *outbox.Outbox
	if cfg != nil {
		box = cfg.Outbox
	}
	return newParticipant("NewParticipant", service, newGuard(db, dialect, box), cfg, errs...)
}

// newParticipant makes what is common to all. A guard without a database
// performs nothing.
func newParticipant(what, service string, guard guard, cfg *ParticipantConfig, errs ...error) *Participant {
	c := cfg.withDefaults()
	if err := txn.CheckName("service", service); err != nil {
		errs = append(errs, err)
	}
	if err := amendsv1.CheckNamespace(c.Namespace); err != nil {
		errs = append(errs, err)
	}
	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		errs = append(errs, fmt.Errorf("Concurrency is %d, want 0 (64) or 1 to %d", c.Concurrency, maxConcurrency))
	}
	if c.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("DrainTimeout is %s, want 0 (30 s) or more", c.DrainTimeout))
	}
	purging, err := c.Purge.withDefaults()
	if err := errors.Join(append(errs, err)...); err != nil {
		panic(fmt.Sprintf("sdk: %s(%q): %v", what, service, err))
	}
	return &Participant{
		service: service, cfg: c, log: c.Logger.With("service", service, "instance", c.Instance),
		tracer:  tracerOf(c.TracerProvider),
		guard:   guard,
		purging: purging,
		actions: map[string]*action{},
		slots:   make(chan struct{}, c.Concurrency),
	}
}

// HandleSaga registers what p does for an action of sagas. Both functions run
// in tx, together with the guard's claim; see the package comment for what they
// may rely on. undo receives the request and what do replied, and runs only if
// do took effect.
//
// undo may be nil for an action that is only used by pivot and retriable steps:
// what it did cannot be undone.
//
// It panics when the action is registered already, belongs to another service,
// when do is nil, and while p runs.
func HandleSaga[Req, Rep any](p *Participant, a saga.Action[Req, Rep],
	do func(ctx context.Context, tx *sql.Tx, req Req) (Rep, error),
	undo func(ctx context.Context, tx *sql.Tx, req Req, did Rep) error,
) {
	if do == nil {
		panic(fmt.Sprintf("sdk: HandleSaga(%q): do is nil", a.Name()))
	}
	ops := map[txn.Op]handler{txn.Do: firstPhase(a.Codec(), do)}
	if undo != nil {
		ops[txn.Undo] = secondPhase(a.Codec(), undo)
	}
	p.register(&action{name: a.Name(), with: "HandleSaga", ops: ops, usual: usualRecord[Rep](a.Codec())})
}

// HandleTCC registers what p does for an action of TCC transactions. try
// reserves; confirm and cancel receive the request and what try replied, and
// exactly one of them runs, once, if try took effect. All run in tx, together
// with the guard's claim. A confirm or cancel must be able to succeed: if it
// refuses, the transaction is parked for a person to decide.
//
// It panics when the action is registered already, belongs to another service,
// when a function is nil, and while p runs.
func HandleTCC[Req, Rep any](p *Participant, a tcc.Action[Req, Rep],
	try func(ctx context.Context, tx *sql.Tx, req Req) (Rep, error),
	confirm, cancel func(ctx context.Context, tx *sql.Tx, req Req, tried Rep) error,
) {
	if try == nil || confirm == nil || cancel == nil {
		panic(fmt.Sprintf("sdk: HandleTCC(%q): try, confirm and cancel are all needed, and one is nil", a.Name()))
	}
	p.register(&action{name: a.Name(), with: "HandleTCC", ops: map[txn.Op]handler{
		txn.Try:     firstPhase(a.Codec(), try),
		txn.Confirm: secondPhase(a.Codec(), confirm),
		txn.Cancel:  secondPhase(a.Codec(), cancel),
	}, usual: usualRecord[Rep](a.Codec())})
}

func (p *Participant) register(a *action) {
	bad := func(format string, args ...any) {
		panic(fmt.Sprintf("sdk: %s(%q): %s", a.with, a.name, fmt.Sprintf(format, args...)))
	}
	if err := txn.CheckAction("action", a.name); err != nil {
		bad("%v (make actions with NewAction)", err)
	}
	if service, _ := txn.SplitAction(a.name); service != p.service {
		bad("the action belongs to service %q, this participant is %q", service, p.service)
	}
	if a.check == nil && p.guard.db == nil {
		bad("the participant has no database: make it with NewParticipant")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if before, ok := p.actions[a.name]; ok {
		bad("it is handled already, with %s", before.with)
	}
	if p.running {
		bad("register handlers before Run")
	}
	p.actions[a.name] = a
}

func (p *Participant) lookup(name string) *action {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.actions[name]
}

// Run creates the guard's tables, attends to every coordinator given and
// performs their calls until ctx ends; then it takes no more calls, lets the
// running ones finish, sends their outcomes and returns nil. It reconnects with
// backoff for as long as ctx lasts. Of a Cluster it attends to every member, also
// to those that join later; Close it after Run has returned.
//
// What becomes of one coordinator does not disturb the others. Handlers are the
// participant's: at most Concurrency run at once, whoever calls. Beside that it
// deletes the guard's claims of what has ended; see PurgeConfig.
//
// That includes a coordinator that refuses its credentials (ErrUnauthenticated,
// ErrPermission): they may be put right at either end without a restart. Such a
// refusal is logged as an error when it is new or has changed, and again every
// 10 minutes while it lasts.
//
// It returns an error early when it was given nothing to do, when the tables
// cannot be created, when every coordinator speaks another version of the protocol
// or rejects the hello (as long as one does not, the others are asked again), and
// when handlers still run 5 s after they were cancelled,
// which is DrainTimeout after the end of ctx.
func (p *Participant) Run(ctx context.Context, conns ...grpc.ClientConnInterface) error {
	if err := p.begin(conns); err != nil {
		return fmt.Errorf("sdk: participant %q: %w", p.service, err)
	}
	defer p.finish()
	if !p.cfg.SkipMigrate && p.guard.db != nil {
		if err := outbox.Migrate(ctx, p.guard.db, p.guard.dialect); err != nil && ctx.Err() == nil {
			return fmt.Errorf("sdk: participant %q: create the guard's tables: %w", p.service, err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	grace, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	context.AfterFunc(gctx, func() { time.AfterFunc(p.cfg.DrainTimeout, stop) })
	for _, run := range p.attendances(grace, conns) {
		g.Go(func() error { return run(gctx) })
	}
	if purge := p.newPurge(conns); purge != nil {
		g.Go(func() error { return purge.run(gctx) })
	}
	err := g.Wait()
	if err := errors.Join(err, p.awaitCalls(grace)); err != nil {
		return fmt.Errorf("sdk: participant %q: %w", p.service, err)
	}
	return nil
}

func (p *Participant) begin(conns []grpc.ClientConnInterface) error {
	if len(conns) == 0 {
		return errors.New("no connection: Run needs at least one coordinator")
	}
	for _, conn := range conns {
		if conn == nil {
			return errors.New("a connection is nil")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.actions) == 0 {
		return errors.New("no actions: register them with HandleSaga, HandleTCC or HandleCheck before Run")
	}
	if p.running {
		return errors.New("it runs already")
	}
	p.running = true
	return nil
}

func (p *Participant) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = false
}

// awaitCalls waits for handlers whose stream is gone; they are bounded by their
// own timeouts unless they ignore their context.
func (p *Participant) awaitCalls(grace context.Context) error {
	done := make(chan struct{})
	go func() {
		p.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-grace.Done(): // which cancels the handlers
	}
	select {
	case <-done:
		return nil
	case <-time.After(farewellTimeout):
		return fmt.Errorf("handlers still run %s after the end: they ignore their context", p.cfg.DrainTimeout+farewellTimeout)
	}
}
