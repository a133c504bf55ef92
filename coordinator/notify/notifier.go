package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator/store"
)

// Sink takes events to where they are wanted.
//
// Send delivers all of them or returns an error, and is then called with the
// same events again, after a while: those which it did deliver may arrive twice.
// An error that wraps ErrRejected says that they will never be taken: then each
// is sent alone, and those still rejected are dropped and counted. An error that
// wraps a *RetryAfterError says how long to wait. Send is called from one
// goroutine, and should end soon after ctx does.
type Sink interface {
	Send(ctx context.Context, events []Event) error
}

// SinkFunc is a Sink.
type SinkFunc func(ctx context.Context, events []Event) error

// Send implements Sink.
func (f SinkFunc) Send(ctx context.Context, events []Event) error { return f(ctx, events) }

// ErrRejected marks an error of a Sink that no repetition will mend.
var ErrRejected = errors.New("notify: the event can never be delivered")

// RetryAfterError is an error of a Sink that wants to be left alone for a while.
type RetryAfterError struct {
	After time.Duration // at most 5 min is heeded
	Err   error
}

// Error is that of Err.
func (e *RetryAfterError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *RetryAfterError) Unwrap() error { return e.Err }

// Subscriber is a sink and what it wants to know.
type Subscriber struct {
	Name  string // in logs and Stats; required, each once
	Sink  Sink   // required
	Types []Type // what it gets; empty: all types
}

// Config holds what may be left out. Zero values stand for the defaults.
type Config struct {
	// Owner is the coordinator.Config.Name of the coordinator whose Observers
	// tell this Notifier, when it differs from that of each other coordinator on
	// the store. Then Run takes only what is in that coordinator's shards.
	// Default: it takes all, so that each coordinator's Notifier sends every
	// alert once, with the same id.
	Owner string
	// Source begins Event.Source. Default "amends".
	Source string
	// PollInterval is how often Run asks the store what is stalled; what is
	// parked it asks for at each sixth time. It is how late an alert may be of
	// which no Observe told. Default 5 s.
	PollInterval time.Duration
	// QueueSize bounds what waits for one sink: so many alerts, and so many
	// other events. Default 10,000.
	QueueSize int
	// MaxAlerts bounds how many transactions a sink is known to have been
	// alerted of; those over it wait until others resume. Default 100,000.
	MaxAlerts int
	// BatchSize is the most events of one Send. Default 100.
	BatchSize int
	// SendTimeout bounds one Send. Default 20 s.
	SendTimeout time.Duration
	// DrainTimeout is how long Run still delivers what is queued after its
	// context has ended. Default 3 s.
	DrainTimeout time.Duration
	// Logger takes what operators should know. Default slog.Default().
	Logger *slog.Logger
}

// complete fills in the defaults and reports every mistake at once.
func (c *Config) complete() error {
	var errs []error
	for _, f := range []struct {
		name string
		v    *int
		def  int
	}{{"QueueSize", &c.QueueSize, 10_000}, {"MaxAlerts", &c.MaxAlerts, 100_000}, {"BatchSize", &c.BatchSize, 100}} {
		errs = append(errs, positive(f.name, f.v, f.def))
	}
	for _, f := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"PollInterval", &c.PollInterval, 5 * time.Second},
		{"SendTimeout", &c.SendTimeout, 20 * time.Second},
		{"DrainTimeout", &c.DrainTimeout, 3 * time.Second},
	} {
		errs = append(errs, positive(f.name, f.v, f.def))
	}
	if c.Source == "" {
		c.Source = defaultSource
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(errs...)
}

func positive[T int | time.Duration](name string, v *T, def T) error {
	if *v < 0 {
		return fmt.Errorf("notify: Config.%s is negative: use 0 for the default", name)
	}
	if *v == 0 {
		*v = def
	}
	return nil
}

// Notifier delivers events to its subscribers. All methods are safe for
// concurrent use.
type Notifier struct {
	st  store.Store
	cfg Config

	mu     sync.Mutex // guards what follows, the subscribers included
	subs   []*subscriber
	wanted map[string]*candidate // by the store's key
	wake   chan struct{}         // of the watcher
}

// New makes a Notifier on the store of a coordinator. It reports every mistake
// at once.
func New(st store.Store, subs []Subscriber, cfg *Config) (*Notifier, error) {
	n := &Notifier{st: st, wanted: map[string]*candidate{}, wake: make(chan struct{}, 1)}
	if cfg != nil {
		n.cfg = *cfg
	}
	errs := []error{n.cfg.complete()}
	names := map[string]bool{}
	for i, s := range subs {
		switch {
		case s.Name == "" || names[s.Name]:
			errs = append(errs, fmt.Errorf("notify: subscriber %d is named %q: give each a name of its own", i, s.Name))
		case s.Sink == nil:
			errs = append(errs, fmt.Errorf("notify: subscriber %q has no Sink", s.Name))
		}
		names[s.Name] = true
		sub, err := newSubscriber(s, &n.cfg)
		errs = append(errs, err)
		n.subs = append(n.subs, sub)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return n, nil
}

// Run delivers until ctx ends, and then what is queued, for DrainTimeout at
// most and without trying anything twice: let ctx end after the coordinator has
// stopped. It returns an error only when the store was closed under it. A
// Notifier runs once.
func (n *Notifier) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watch(ctx) })
	for _, s := range n.subs {
		g.Go(func() error {
			n.deliver(ctx, s)
			return nil
		})
	}
	return g.Wait()
}

// Observe is for coordinator.Config.Observers. It never blocks.
func (n *Notifier) Observe(rec store.Record, events []store.Event) {
	if rec.Kind == bulkKind {
		return
	}
	operated := operated(n.cfg.Source, &rec, events)
	n.mu.Lock()
	defer n.mu.Unlock()
	if needs := alerting(&rec); needs != "" {
		n.observeAlert(rec.GID, needs, operated)
		return
	}
	if c := n.wanted[rec.GID]; c != nil { // it is over before it was told
		delete(n.wanted, rec.GID)
		n.pass(c.held...)
	}
	n.pass(operated...)
	n.resumed(&rec)
	if t := ending(&rec); t != "" && n.takes(t) {
		n.pass(ended(n.cfg.Source, &rec, t, operated))
	}
}

// Stats are the figures of one subscriber, since New.
type Stats struct {
	Name     string
	Queued   int       // events that wait to be delivered
	Oldest   time.Time // when the first of them happened; zero: none waits
	Alerts   int       // transactions that it was, or is being, alerted of and that have not resumed
	Sent     uint64    // events that the sink took
	Failures uint64    // calls of Send that failed
	Dropped  uint64    // events for which the queue had no room; never alerts
	Rejected uint64    // events that the sink will never take
}

// Stats returns the figures of each subscriber, in the order of New.
func (n *Notifier) Stats() []Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]Stats, len(n.subs))
	for i, s := range n.subs {
		out[i] = s.stats
		out[i].Name, out[i].Queued, out[i].Alerts = s.Name, len(s.queue), len(s.open)
		if len(s.queue) > 0 {
			out[i].Oldest = s.queue[0].Time
		}
	}
	return out
}
