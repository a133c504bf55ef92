package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Defaults and bounds of Config.
const (
	DefaultMaxRows    = 1_000_000
	DefaultMaxMessage = 1 << 20 // bytes
)

// Policy says what happens to a message that finds the outbox full.
type Policy uint8

// The policies.
const (
	// Block makes Outbox.Tx wait for room before it begins, until its context
	// ends. It never waits inside a transaction: that would hold locks, and on
	// SQLite keep the relay from making room. So a Write in a transaction that
	// did not come from Outbox.Tx returns ErrOutboxFull.
	Block Policy = iota
	// Reject makes Write return ErrOutboxFull.
	Reject
	// Shed drops messages that are marked Sheddable, counts and logs them, and
	// rejects the others.
	Shed
)

// String is "block", "reject" or "shed".
func (p Policy) String() string {
	switch p {
	case Block:
		return "block"
	case Reject:
		return "reject"
	case Shed:
		return "shed"
	}
	return fmt.Sprintf("Policy(%d)", uint8(p))
}

// Errors of this package. Test them with errors.Is.
var (
	// ErrOutboxFull is returned when the outbox has reached one of its bounds. It
	// says which, and what to do.
	ErrOutboxFull = errors.New("outbox: full")
	// ErrMessage is returned for a message that cannot be stored; it names each
	// field and the fix.
	ErrMessage = errors.New("outbox: illegal message")
	// ErrConfig is returned for a configuration with mistakes.
	ErrConfig = errors.New("outbox: illegal configuration")
)

// Config are the options of an Outbox. The zero value, and nil, are the defaults.
type Config struct {
	// MaxRows bounds the backlog in messages, delayed and parked ones included, but
	// not the dead letters; 0 means DefaultMaxRows, negative none. See Outbox for the
	// overshoot.
	MaxRows int
	// MaxBytes bounds in the same way what they weigh: their bodies, headers, keys
	// and ids, without what the database adds. 0 means none. At least MaxMessage.
	MaxBytes int64
	// MaxAge bounds how long the oldest message may have waited, delayed and parked
	// ones apart: while it is older there is no room. 0 means none.
	MaxAge time.Duration
	// Policy is for topics that Policies does not name. Default: Block.
	Policy Policy
	// Policies says per topic what happens when the outbox is full.
	Policies map[string]Policy
	// Express names topics whose messages have a lane of their own, so that they
	// never wait behind a backlog of others. Messages of a key are in order within
	// each of the two lanes. All writers of a database have to agree: while they
	// differ about a topic, there is no order between what they write to it. A Relay
	// of an Outbox with Express logs what it finds in the wrong lane.
	Express []string
	// MaxMessage bounds one message with all its fields, in bytes; 0 means
	// DefaultMaxMessage.
	MaxMessage int
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

func (c *Config) validate() error {
	var errs []error
	if c.MaxMessage < 0 {
		errs = append(errs, fmt.Errorf("field MaxMessage is %d: use bytes above 0, or 0 for the default", c.MaxMessage))
	}
	if c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("field MaxBytes is %d: use bytes above 0, or 0 for no bound", c.MaxBytes))
	}
	if limit := cmp.Or(c.MaxMessage, DefaultMaxMessage); c.MaxBytes > 0 && c.MaxBytes < int64(limit) {
		errs = append(errs, fmt.Errorf("field MaxBytes is %d, below MaxMessage, which is %d: "+
			"a message could never find room: raise MaxBytes or lower MaxMessage", c.MaxBytes, limit))
	}
	if c.MaxAge < 0 {
		errs = append(errs, fmt.Errorf("field MaxAge is %v: use a duration above 0, or 0 for no bound", c.MaxAge))
	}
	for _, topic := range c.Express {
		if err := checkTopic(topic); err != nil {
			errs = append(errs, fmt.Errorf("field Express: %w", err))
		}
	}
	if c.Policy > Shed {
		errs = append(errs, fmt.Errorf("field Policy is %v: use Block, Reject or Shed", c.Policy))
	}
	for topic, p := range c.Policies {
		if err := checkTopic(topic); err != nil {
			errs = append(errs, fmt.Errorf("field Policies: %w", err))
		}
		if p > Shed {
			errs = append(errs, fmt.Errorf("field Policies[%q] is %v: use Block, Reject or Shed", topic, p))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
	}
	return nil
}

// Outbox writes messages in the application's transactions. Make one per
// database and process. Safe for concurrent use.
//
// The bounds hold for all processes that write to the database together, without
// a lock between them: each measures how full the tables are, and takes at most a
// sixteenth of the room that it found, or one transaction, before it measures
// again. So with P processes MaxRows and MaxBytes are passed by at most
//
//	(P - 1) × max(MaxRows / 16, one transaction) + what is not committed yet
//
// in messages, and likewise in bytes. Not committed yet is what others have
// written to open transactions (transactions longer than 2 s may count as open for
// some time after), and what a transaction that Tx let in, while there was room,
// writes after its first message. The share shrinks with the room, so that
// most of this takes processes that stop in the middle of a write. MaxAge is
// looked at every quarter of a second, or as often as there is time to measure.
//
// A measurement reads only what has changed, never the whole table but at first,
// and measuring takes at most a twentieth of the time, of which a second may be
// saved up and a tenth of a second owed: close to a bound a process waits for, or is
// refused, room that it has not had the time to measure, for at most 2 s after a
// measurement, however long that took. Write measures what its transaction sees: at
// REPEATABLE READ, what was there when it began.
type Outbox struct {
	d    *Dialect
	cfg  Config
	err  error // of the configuration; returned by each call
	log  *slog.Logger
	room *room

	express map[string]bool // topics

	mu       sync.Mutex
	wakes    []waker
	admitted map[*sql.Tx]*admission
}

// New makes an outbox. Mistakes in cfg (nil: the defaults) are returned by the
// first Write, Tx or Relay.Run as ErrConfig, all at once.
func New(d *Dialect, cfg *Config) *Outbox {
	o := &Outbox{d: d, express: map[string]bool{}, admitted: map[*sql.Tx]*admission{}}
	if cfg != nil {
		o.cfg = *cfg
	}
	o.err = o.cfg.validate()
	if d == nil {
		o.err = errors.Join(o.err, fmt.Errorf("%w: the dialect is nil: use outbox.SQLite or outbox.MySQL", ErrConfig))
	}
	if o.cfg.MaxRows == 0 {
		o.cfg.MaxRows = DefaultMaxRows
	}
	if o.cfg.MaxMessage == 0 {
		o.cfg.MaxMessage = DefaultMaxMessage
	}
	if o.log = o.cfg.Logger; o.log == nil {
		o.log = slog.Default()
	}
	for _, topic := range o.cfg.Express {
		o.express[topic] = true
	}
	o.room = newRoom(d, &o.cfg)
	return o
}

// Dialect is the dialect that the outbox was made with.
func (o *Outbox) Dialect() *Dialect { return o.d }

// Shed counts the messages that the policy Shed dropped since the outbox was made.
func (o *Outbox) Shed() uint64 {
	sum := uint64(0)
	for _, n := range o.Stats().Shed {
		sum += n
	}
	return sum
}

// Tx runs fn in a transaction of db, commits when fn returns nil, rolls back on
// every other way out (a panic goes on), and after the commit wakes the relays of
// this process for what Write has written in it.
//
// When the outbox is full it first waits for room, until ctx ends, if a topic
// that fn will write has the policy Block. topics names those; without it
// Config.Policy decides. The error is then ErrOutboxFull and the context's.
//
// After an error of the commit itself nobody knows whether it took place.
func (o *Outbox) Tx(ctx context.Context, db *sql.DB, fn func(tx *sql.Tx) error, topics ...string) error {
	if o.err != nil {
		return o.err
	}
	a, err := o.begin(ctx, db, o.blocks(topics))
	if err != nil {
		return err
	}
	defer func() { o.room.ended(a.taken) }()
	var own error
	err = InTx(ctx, db, nil, func(tx *sql.Tx) error {
		o.setAdmission(tx, a)
		defer o.setAdmission(tx, nil)
		own = fn(tx)
		return own
	})
	if own != nil {
		return own
	}
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	o.wake(a.wrote)
	return nil
}

// Follow is for whoever begins and ends a transaction without Tx, and does not
// know whether Write is called in it. Call ended once, when it has ended: where it
// was committed, that wakes the relays of this process for what Write has written
// in it, and where nothing was it leaves them alone.
func (o *Outbox) Follow(tx *sql.Tx) (ended func(committed bool)) {
	a := &admission{}
	o.setAdmission(tx, a)
	return func(committed bool) {
		o.setAdmission(tx, nil)
		o.room.ended(a.taken)
		if committed {
			o.wake(a.wrote)
		}
	}
}

func (o *Outbox) policy(topic string) Policy {
	if p, ok := o.cfg.Policies[topic]; ok {
		return p
	}
	return o.cfg.Policy
}

func (o *Outbox) blocks(topics []string) bool {
	if len(topics) == 0 {
		return o.cfg.Policy == Block
	}
	for _, t := range topics {
		if o.policy(t) == Block {
			return true
		}
	}
	return false
}

// micros is a duration as the statements take it.
func micros(d time.Duration) int64 { return d.Microseconds() }
