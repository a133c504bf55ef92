package sdktest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/sdk"
)

// drainTimeout bounds the end of a test in which calls are under way.
const drainTimeout = 100 * time.Millisecond

// Config tunes a World. A nil *Config is all defaults.
type Config struct {
	Faults      Faults              // between the coordinator and participants; none by default
	Coordinator *coordinator.Config // nil: its defaults, but for a DrainTimeout of 100 ms
	Logger      *slog.Logger        // of the coordinator and the client; nil: nothing is logged
}

// World is a coordinator with what a test needs around it. Its methods fail the
// test themselves when something is wrong, so call those from the test's own
// goroutine.
type World struct {
	t    testing.TB
	cfg  Config
	link *link // to whichever coordinator runs

	mu      sync.Mutex
	current *incarnation
	dbs     map[string]*database
	streams int64 // of participants so far; each has a random sequence of its own

	attending sync.WaitGroup
}

// incarnation is one life of the coordinator.
type incarnation struct {
	store  *owned
	cancel context.CancelFunc
	ended  chan error // gets what Run returned
}

// owned remembers who took leases on a store, so that they can be given back
// for somebody who is dead.
type owned struct {
	*memstore.Store
	mu    sync.Mutex
	owner string
}

// Acquire notes the owner.
func (o *owned) Acquire(ctx context.Context, owner string, ttl time.Duration, limit int) ([]store.Lease, error) {
	o.mu.Lock()
	o.owner = owner
	o.mu.Unlock()
	return o.Store.Acquire(ctx, owner, ttl, limit)
}

// New starts a coordinator that lives until the test and its subtests end. In a
// synctest bubble call it with the bubble's own t.
func New(t testing.TB, cfg *Config) *World {
	t.Helper()
	w := &World{t: t, link: &link{}, dbs: map[string]*database{}}
	if cfg != nil {
		w.cfg = *cfg
	}
	if err := w.cfg.Faults.validate(); err != nil {
		t.Fatal(err)
	}
	if w.cfg.Logger == nil {
		w.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w.boot(memstore.New(nil))
	t.Cleanup(w.stop)
	return w
}

// boot starts a coordinator on a store. New and Crash call it.
func (w *World) boot(st *memstore.Store) {
	w.t.Helper()
	var cfg coordinator.Config
	if w.cfg.Coordinator != nil {
		cfg = *w.cfg.Coordinator
	}
	if cfg.Logger == nil {
		cfg.Logger = w.cfg.Logger
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = drainTimeout
	}
	in := &incarnation{store: &owned{Store: st}, ended: make(chan error, 1)}
	c, err := coordinator.New(context.Background(), in.store, &cfg)
	if err != nil {
		w.t.Fatalf("sdktest: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	in.cancel = cancel
	go func() { in.ended <- c.Run(ctx) }()
	w.mu.Lock()
	w.current = in
	w.mu.Unlock()
	w.link.plug(c.Conn())
}

// stop ends the world: participants first, which drain.
func (w *World) stop() {
	w.attending.Wait() // they watch the test's context, which has ended
	w.link.cut()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current.cancel()
	err := errors.Join(<-w.current.ended, w.current.store.Close())
	for name, db := range w.dbs {
		if cerr := db.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close database %q: %w", name, cerr))
		}
	}
	if err != nil {
		w.t.Errorf("sdktest: at the end of the test: %v", err)
	}
}

// Conn is a connection to the coordinator that outlives its crashes. While no
// coordinator runs, it answers Unavailable.
func (w *World) Conn() grpc.ClientConnInterface { return w.link }

// Client returns a client of the coordinator. Faults do not concern it.
func (w *World) Client() *sdk.Client {
	return sdk.NewClient(w.link, &sdk.ClientConfig{Logger: w.cfg.Logger})
}

// Attendant is what attends to coordinators: an sdk.Participant or sdk.Courier.
type Attendant interface {
	Run(ctx context.Context, conns ...grpc.ClientConnInterface) error
}

// Attend runs a participant, over a connection with the configured Faults, and
// returns at once. The participant drains when the returned function is called,
// which waits for that, or else at the end of the test. An error of its Run
// fails the test.
func (w *World) Attend(p Attendant) (stop func()) {
	w.mu.Lock()
	w.streams++
	conn := &faultyConn{ClientConnInterface: w.link, faults: w.cfg.Faults, number: w.streams}
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	w.attending.Go(func() {
		defer cancel()
		defer close(ended)
		err := p.Run(ctx, conn)
		if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) { // cancelled before it had begun
			w.t.Errorf("sdktest: %v", err)
		}
	})
	return func() {
		cancel()
		<-ended
	}
}

// DB returns the SQLite database of that name, in memory, the same one each
// time; it is closed when the test ends. Use it with outbox.SQLite.
//
// It has a single connection, so that a wait for a lock is one that virtual
// time knows of. A handler that reads or writes the database beside its own
// transaction therefore waits for itself, until its call times out.
func (w *World) DB(name string) *sql.DB {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if db := w.dbs[name]; db != nil {
		return db.DB
	}
	db, err := openMemory()
	if err != nil {
		w.t.Fatalf("sdktest: database %q: %v", name, err)
	}
	w.dbs[name] = db
	return db.DB
}

// Crash kills the coordinator, as a power cut would: what it had not committed
// is lost, no answer leaves any more, streams break. Then it starts another one
// on the same store, and returns. The dead one's leases are given back at once,
// so that nobody has to wait until they expire.
func (w *World) Crash() {
	w.t.Helper()
	w.mu.Lock()
	old := w.current
	w.mu.Unlock()
	err := old.store.Close() // from here on it can commit nothing
	w.link.cut()
	old.cancel()
	if rerr := <-old.ended; rerr != nil && !errors.Is(rerr, store.ErrClosed) {
		err = errors.Join(err, rerr)
	}
	next := old.store.Reopen()
	old.store.mu.Lock()
	owner := old.store.owner
	old.store.mu.Unlock()
	if owner != "" {
		err = errors.Join(err, next.Release(context.Background(), owner))
	}
	if err != nil {
		w.t.Fatalf("sdktest: crash: %v", err)
	}
	w.boot(next)
}
