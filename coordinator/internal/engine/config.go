package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/amends-dev/amends/coordinator/store"
)

// Config holds what may be left out. The zero value stands for the defaults.
type Config struct {
	// Owner names this engine in leases; it must be unique among engines that
	// ever ran on the store. Default: a UUID.
	Owner string
	// Address is where other members and clients reach this engine's services,
	// host:port; Version that of its program. Both are told to the others.
	// Default: nowhere, and none.
	Address, Version string
	// Workers is how many goroutines share the shards, each with commits of its
	// own. One makes the largest batches; several help where the database takes
	// long to commit and has cores to spare. Default 1.
	Workers int
	// LeaseTTL is how long shards stay ours without a renewal, and so how long
	// a crash of ours delays their transactions, but for a second. Members of a
	// cluster should have the same. Default 10 s.
	LeaseTTL time.Duration
	// MaxLive bounds the transactions in memory that were started here. A start
	// over it is refused with ErrOverloaded. So is a start (or a try) that names
	// a service for which as many transactions wait as are left free of
	// MaxLive: one service that is away holds at most half of it, two a third
	// each, and those that are well always find room. What is taken over from
	// the store has a room of its own, three times as large and shared in the
	// same way; what does not fit stays in the store until it does. Default
	// 100,000. However large it is, a start is refused, too, while 2,048 of them
	// wait to be stored.
	MaxLive int
	// Tracer makes spans of starts, transitions and calls, in the traces in which
	// transactions were started. nil: none are made.
	Tracer trace.Tracer
	// Quota is what a namespace may take; it is asked at every start. A start
	// over it is refused with ErrOverloaded. nil: there are none.
	Quota func(namespace string) Quota
	// StallAfter is how long a transaction may wait for a participant before it
	// is marked as stalled, with an audit event. Default 1 min; negative: never.
	StallAfter time.Duration
	// SweepInterval is the time between looks for due transactions. Default 1 s.
	SweepInterval time.Duration
	// Retention is how long finished transactions are kept. Default 7 days;
	// negative: for ever.
	Retention time.Duration
	// DrainTimeout bounds the end of Run, twice: the time in which shards go
	// over to other members, and then the wait for calls under way. Default 5 s.
	DrainTimeout time.Duration
	// Observers are told of every transition once it is durable, with its audit
	// events; not of one whose answer was lost with the coordinator. They are
	// called one after the other and hold up the engine: they must not block,
	// and change nothing.
	Observers []func(rec store.Record, events []store.Event)
	// Announce says what a transition tells the world outside: its messages are
	// committed with it, to the store's outbox. It is called before the commit,
	// which may fail, and must not block. nil: nothing.
	Announce func(rec store.Record, events []store.Event) []store.Message
	// Remote carries out a command at the member that owns its transaction, and
	// returns what Act returns there. Bulks need it where there are several
	// members. nil: what is not owned here counts as failed.
	Remote func(ctx context.Context, owner store.Member, c Command) error
	// Logger takes what operators should know. Default slog.Default().
	Logger *slog.Logger
}

// Bounds that nobody has needed to change.
const (
	inboxSize   = 1024             // functions in each box of a worker
	maxBatch    = 512              // transactions in one commit
	maxBurst    = 1024             // functions a worker runs before it looks at its batch
	startEvery  = 8                // functions that a worker runs before it takes a start out of turn
	horizon     = time.Minute      // transactions due later than this leave memory
	fullSweep   = 30 * time.Second // how often all that is due is looked at, unless that takes long:
	sweepPace   = 50               // then it is a fiftieth of the time
	sweepPage   = 1000
	sweepChunk  = 64 // of a page, that a worker takes in at a time
	purgePage   = 1000
	purgeEvery  = time.Minute
	goneSize    = 1 << 16 // departures that a worker remembers
	overloadFor = time.Second
	owedFactor  = 3 // times MaxLive: the room for what the sweep takes in
	oneAttempts = 3 // at a write that fails alone, before it counts as refused
)

func (c *Config) withDefaults() (Config, error) {
	var out Config
	if c != nil {
		out = *c
	}
	var errs []error
	notNegative := func(field string, v int64) {
		if v < 0 {
			errs = append(errs, fmt.Errorf("engine: config: %s is negative, want 0 (the default) or more", field))
		}
	}
	notNegative("Workers", int64(out.Workers))
	notNegative("LeaseTTL", int64(out.LeaseTTL))
	notNegative("MaxLive", int64(out.MaxLive))
	notNegative("SweepInterval", int64(out.SweepInterval))
	notNegative("DrainTimeout", int64(out.DrainTimeout))
	orDefault(&out.Owner, uuid.NewString())
	orDefault(&out.Workers, 1)
	orDefault(&out.LeaseTTL, 10*time.Second)
	orDefault(&out.MaxLive, 100_000)
	orDefault(&out.StallAfter, time.Minute)
	orDefault(&out.SweepInterval, time.Second)
	orDefault(&out.Retention, 7*24*time.Hour)
	orDefault(&out.DrainTimeout, 5*time.Second)
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	return out, errors.Join(errs...)
}

func orDefault[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}
