package outbox

import (
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
	// ErrOutboxFull is returned when the outbox holds Config.MaxRows rows.
	ErrOutboxFull = errors.New("outbox: full")
	// ErrMessage is returned for a message that cannot be stored; it names each
	// field and the fix.
	ErrMessage = errors.New("outbox: illegal message")
	// ErrConfig is returned for a configuration with mistakes.
	ErrConfig = errors.New("outbox: illegal configuration")
)

// Config are the options of an Outbox. The zero value, and nil, are the defaults.
type Config struct {
	// MaxRows bounds the backlog in rows; 0 means DefaultMaxRows, negative none.
	// The count is an estimate: see Outbox for the overshoot.
	MaxRows int
	// Policy is for topics that Policies does not name. Default: Block.
	Policy Policy
	// Policies says per topic what happens when the outbox is full.
	Policies map[string]Policy
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
// The bound on rows counts this process's writes at once and everybody else's
// every quarter of a second, so that it can be passed by what other processes
// commit in that time (longer when counting the table takes longer than 10 ms:
// twenty times as long), by rows that Write put into transactions not begun by
// Tx and still open when the rows are counted, and by the rows after the first of
// each transaction that Tx let in while there was room.
type Outbox struct {
	d    *Dialect
	cfg  Config
	err  error // of the configuration; returned by each call
	log  *slog.Logger
	room *room

	mu       sync.Mutex
	wakes    []chan struct{}
	admitted map[*sql.Tx]bool
}

// New makes an outbox. Mistakes in cfg (nil: the defaults) are returned by the
// first Write, Tx or Relay.Run as ErrConfig, all at once.
func New(d *Dialect, cfg *Config) *Outbox {
	o := &Outbox{d: d, admitted: map[*sql.Tx]bool{}}
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
	o.room = newRoom(d, o.cfg.MaxRows)
	return o
}

// Dialect is the dialect that the outbox was made with.
func (o *Outbox) Dialect() *Dialect { return o.d }

// Shed counts the messages that the policy Shed dropped since the outbox was made.
func (o *Outbox) Shed() uint64 { return o.room.shed.Load() }

// Tx runs fn in a transaction of db, commits when fn returns nil, rolls back on
// every other way out (a panic goes on), and wakes the relay after the commit.
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
	waits := o.blocks(topics)
	if waits {
		if err := o.room.wait(ctx, db); err != nil {
			return err
		}
		defer o.room.done()
	}
	var own error
	err := InTx(ctx, db, nil, func(tx *sql.Tx) error {
		if waits {
			o.setAdmitted(tx, true)
			defer o.setAdmitted(tx, false)
		}
		own = fn(tx)
		return own
	})
	if own != nil {
		return own
	}
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	o.Wake()
	return nil
}

// Wake makes the relays of this process look at the table now. It never blocks.
func (o *Outbox) Wake() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.wakes {
		select {
		case c <- struct{}{}:
		default: // a wake-up is pending already
		}
	}
}

// subscribe makes a channel that Wake fills; the func gives it back.
func (o *Outbox) subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wakes = append(o.wakes, c)
	return c, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for i, other := range o.wakes {
			if other == c {
				o.wakes = append(o.wakes[:i], o.wakes[i+1:]...)
				return
			}
		}
	}
}

func (o *Outbox) setAdmitted(tx *sql.Tx, on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if on {
		o.admitted[tx] = true
	} else {
		delete(o.admitted, tx)
	}
}

func (o *Outbox) isAdmitted(tx *sql.Tx) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.admitted[tx]
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
