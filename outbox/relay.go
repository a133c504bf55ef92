package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// PoisonPolicy says what a relay does with a message that can never be published.
type PoisonPolicy uint8

const (
	// DeadLetter moves it to the dead letters, with error, attempts and time, and
	// goes on with the later messages of its key.
	DeadLetter PoisonPolicy = iota
	// BlockKey holds back the later messages of its key, and tries again every
	// RelayConfig.BlockRetry, or when an Operator has skipped or parked it.
	BlockKey
	// ParkKey parks it, and with it what comes behind it of its key: out of the way
	// of everything else, among the dead letters, and in order, until an Operator
	// replays or discards them. A message without a key is parked alone.
	ParkKey
)

// String is "deadletter", "block" or "park".
func (p PoisonPolicy) String() string {
	switch p {
	case DeadLetter:
		return "deadletter"
	case BlockKey:
		return "block"
	case ParkKey:
		return "park"
	}
	return fmt.Sprintf("PoisonPolicy(%d)", uint8(p))
}

// Defaults of RelayConfig.
const (
	DefaultLease      = 10 * time.Second
	DefaultBatch      = 500 // rows
	DefaultPollMin    = 5 * time.Millisecond
	DefaultPollMax    = time.Second
	DefaultMaxBackoff = 5 * time.Second
	DefaultBlockRetry = time.Minute
	DefaultCommitTime = time.Minute
	DefaultSweep      = 30 * time.Second
	DefaultShare      = 0.1 // of the time
)

const maxOwner = 400 // bytes of RelayConfig.Owner that are stored

// RelayConfig are the options of a Relay. The zero value, and nil, are the
// defaults; 0 in a field means its default.
type RelayConfig struct {
	// Owner names this relay in the owner table, for people; more than 400 bytes
	// are visibly cut. Default: host and process id. A random part is always added.
	Owner string
	// Lease is how long a partition stays with a relay that went silent: after a
	// crash its messages wait that long. At least 100 ms.
	Lease time.Duration
	// Batch is how many rows are read, published and deleted at once.
	Batch int
	// PollMin and PollMax bound the time between two looks at a quiet table. It
	// doubles from one to the other, and begins anew with messages of which nobody
	// told; Outbox.Wake in the same process ends it.
	PollMin, PollMax time.Duration
	// MaxBackoff bounds the time between two attempts to publish a message.
	MaxBackoff time.Duration
	// BlockRetry is the time between two attempts of a message that blocks its
	// key by the policy BlockKey.
	BlockRetry time.Duration
	// CommitTime is how long a transaction that wrote a message may stay open
	// without losing its place in the order of its key. A message that commits
	// later is still published, at the latest with the next sweep.
	CommitTime time.Duration
	// Sweep is the time between two passes over a partition from its beginning.
	Sweep time.Duration
	// Share is the part of the time, above 0 and up to 1, for which the relay keeps
	// the database busy while it works on a backlog; in between it rests, so that the
	// backlog slows down others little. With 1 it never rests, and deletes, publishes
	// and reads at the same time. Messages that are no backlog, less than a Batch at a
	// time, never wait for this; of a backlog what takes about Share of a second is
	// dealt with at once. A relay that falls behind what is written takes a larger share.
	Share float64
	// Keys saves duplicates; nil means none.
	Keys Keys
	// Poison is the policy for messages that can never be published. Rows held
	// back behind another message of their key that failed, and is tried again,
	// are kept in mind up to 200 batches a partition; with more of them they are
	// moved out of the way, which is logged. Operator.Blocked names the keys.
	Poison PoisonPolicy
	// Source brings messages as they are committed; nil means polling. See package
	// binlog. It serves this relay only.
	Source Source
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

func (c *RelayConfig) fill() {
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&c.Lease, DefaultLease)
	def(&c.PollMin, DefaultPollMin)
	def(&c.PollMax, max(DefaultPollMax, c.PollMin))
	def(&c.MaxBackoff, DefaultMaxBackoff)
	def(&c.BlockRetry, DefaultBlockRetry)
	def(&c.CommitTime, DefaultCommitTime)
	def(&c.Sweep, DefaultSweep)
	setDefault(&c.Batch, DefaultBatch)
	setDefault(&c.Share, DefaultShare)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Owner == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown" // the name is for people only
		}
		c.Owner = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
}

// validate joins every mistake of a filled configuration.
func (c *RelayConfig) validate() error {
	var errs []error
	if c.Lease < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("field Lease is %v: use at least 100ms", c.Lease))
	}
	if c.Batch < 0 {
		errs = append(errs, fmt.Errorf("field Batch is %d: use a number above 0", c.Batch))
	}
	if !(c.Share > 0 && c.Share <= 1) { // so is a NaN found
		errs = append(errs, fmt.Errorf("field Share is %v: use a part of the time, above 0 and up to 1", c.Share))
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"PollMin", c.PollMin}, {"PollMax", c.PollMax}, {"MaxBackoff", c.MaxBackoff},
		{"BlockRetry", c.BlockRetry}, {"CommitTime", c.CommitTime}, {"Sweep", c.Sweep},
	} {
		if f.d < 0 {
			errs = append(errs, fmt.Errorf("field %s is %v: use a duration above 0", f.name, f.d))
		}
	}
	if c.PollMin > c.PollMax {
		errs = append(errs, fmt.Errorf("field PollMin is %v, above PollMax, which is %v", c.PollMin, c.PollMax))
	}
	if c.Poison > ParkKey {
		errs = append(errs, fmt.Errorf("field Poison is %v: use DeadLetter, BlockKey or ParkKey", c.Poison))
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
	}
	return nil
}

// RelayStats counts what a relay did since it was made.
type RelayStats struct {
	Published    uint64 // messages acknowledged
	Skipped      uint64 // messages found by Keys to be in the log already, after a takeover
	Duplicates   uint64 // messages dropped because of their idempotency key
	Dead         uint64 // messages moved to the dead letters
	Failures     uint64 // failed attempts to publish a message
	KeysErrors   uint64 // calls of Keys that failed
	LeasesTaken  uint64 // partitions taken over
	LeasesLost   uint64 // partitions found to be another's, or past their lease
	LateArrivals uint64 // rows that became visible behind the cursor
	Aside        uint64 // messages put aside, until their time or behind one of their key
	Streamed     uint64 // messages that came from the Source
	Fallbacks    uint64 // times a partition went back from the Source to its table
}

type relayCounters struct {
	published, skipped, duplicates, dead, failures, taken, lost, late, aside, streamed, fallbacks atomic.Uint64
}

// Relay publishes what an outbox holds. Several relays of one database share the
// partitions: each is one relay's at a time, and another takes over at most a
// lease after it went silent. What is published is deleted within about 50 ms, so
// that messages which come one by one share a commit; what a crash leaves in
// between comes again.
type Relay struct {
	o     *Outbox
	db    *sql.DB
	pub   Publisher
	cfg   RelayConfig
	keys  *keysGuard
	count relayCounters
	err   error
	pace  pace
}

// NewRelay makes a relay; Run reports mistakes in cfg. One *Relay is run once at
// a time.
func NewRelay(o *Outbox, db *sql.DB, pub Publisher, cfg *RelayConfig) *Relay {
	r := &Relay{o: o, db: db, pub: pub}
	if cfg != nil {
		r.cfg = *cfg
	}
	r.cfg.fill()
	r.err = errors.Join(o.err, r.cfg.validate(), r.validateSource())
	if pub == nil {
		r.err = errors.Join(r.err, fmt.Errorf("%w: the publisher is nil", ErrConfig))
	}
	r.pace.least, r.pace.share = r.cfg.Share, r.cfg.Share
	r.keys = &keysGuard{keys: r.cfg.Keys, log: r.cfg.Logger}
	return r
}

// Run relays until ctx ends, and then returns nil after the batches under way
// are published (within a lease) and deleted, and the partitions given back.
// Errors of database and publisher are logged and tried again; only ErrConfig is
// returned.
func (r *Relay) Run(ctx context.Context) error {
	if r.err != nil {
		return r.err
	}
	id, err := newID()
	if err != nil {
		return err
	}
	if err := r.checkSource(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if r.cfg.Source != nil {
		g.Go(func() error { return r.runSource(ctx) })
	}
	for n := range Partitions {
		p := &partition{
			r: r, sql: &r.o.d.part[n], owner: clip(r.cfg.Owner, maxOwner) + "/" + id,
			lease: lease{d: r.o.d, part: n, length: r.cfg.Lease},
		}
		p.readFrom(r.cfg.Source)
		g.Go(func() error {
			p.run(ctx)
			return nil
		})
	}
	return g.Wait()
}

// Stats is a snapshot of the relay's counters. Safe for concurrent use.
func (r *Relay) Stats() RelayStats {
	return RelayStats{
		Published:    r.count.published.Load(),
		Skipped:      r.count.skipped.Load(),
		Duplicates:   r.count.duplicates.Load(),
		Dead:         r.count.dead.Load(),
		Failures:     r.count.failures.Load(),
		KeysErrors:   r.keys.errors.Load(),
		LeasesTaken:  r.count.taken.Load(),
		LeasesLost:   r.count.lost.Load(),
		LateArrivals: r.count.late.Load(),
		Aside:        r.count.aside.Load(),
		Streamed:     r.count.streamed.Load(),
		Fallbacks:    r.count.fallbacks.Load(),
	}
}
