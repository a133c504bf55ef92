package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	measureEvery = 250 * time.Millisecond // how old the estimate may be while there is room
	measureShare = 20                     // measuring takes at most 1/20 of the time
	measureAhead = time.Second            // of measuring that may be saved up
	measureOwed  = 100 * time.Millisecond // of measuring that may be owed: 2 s without any
	waitPoll     = 20 * time.Millisecond  // how often a blocked Tx looks for room
	roomShare    = 16                     // of the room found, 1/16 may be taken before it is measured again
)

// room keeps an outbox within its bounds: it estimates how full it is, and lets
// this process take a part of the room that is left before it measures again.
//
// The proof of the stated overshoot (see Outbox): let M be the last measurement
// of any process that found room. What is written later, by anybody, was let in
// by M or by an earlier measurement: by M at most the room that M found, by the
// last earlier one of each other process at most a sixteenth of what that found,
// or one transaction. What M did not see is what was not committed then.
type room struct {
	d      *Dialect
	max    amount // negative: no bound
	maxAge time.Duration

	mu        sync.Mutex
	gauge     gauge
	level     level     // as measured, and what was written here since
	at        time.Time // of the measurement
	grant     amount    // what may be taken before the next one
	used      amount    // of that
	written   amount    // here, ever
	open      amount    // of that, by Tx in transactions that have not ended
	saved     time.Duration
	savedAt   time.Time
	measuring bool

	blocked  int // Tx that wait
	rejected uint64
	shed     map[string]*shedTopic
}

type shedTopic struct {
	dropped uint64
	logged  time.Time
}

func newRoom(d *Dialect, c *Config) *room {
	r := &room{d: d, max: amount{int64(c.MaxRows), c.MaxBytes}, maxAge: c.MaxAge, shed: map[string]*shedTopic{}}
	if r.max.bytes == 0 {
		r.max.bytes = -1
	}
	return r
}

func (r *room) bounded() bool { return r.max.rows >= 0 || r.max.bytes >= 0 || r.maxAge > 0 }

// over names the bound that n more would pass, or "".
func (r *room) over(n amount) string {
	switch {
	case r.max.rows >= 0 && r.level.rows+n.rows > r.max.rows:
		return fmt.Sprintf("it holds about %d messages and Config.MaxRows is %d", r.level.rows, r.max.rows)
	case r.max.bytes >= 0 && r.level.bytes+n.bytes > r.max.bytes:
		return fmt.Sprintf("it holds about %d bytes and Config.MaxBytes is %d", r.level.bytes, r.max.bytes)
	case r.maxAge > 0 && r.level.oldest > r.maxAge:
		return fmt.Sprintf("the oldest message waits for %v and Config.MaxAge is %v",
			r.level.oldest.Round(time.Millisecond), r.maxAge)
	}
	return ""
}

// full says why there is no room for n, or "".
func (r *room) full(n amount) string {
	if why := r.over(n); why != "" {
		return why
	}
	sum := r.used.plus(n)
	spent := r.max.rows >= 0 && sum.rows > r.grant.rows || r.max.bytes >= 0 && sum.bytes > r.grant.bytes
	if spent && r.used != (amount{}) {
		return fmt.Sprintf("it holds about %d messages (Config.MaxRows is %d) and %d bytes (Config.MaxBytes is %d), "+
			"and others may write too", r.level.rows, r.max.rows, r.level.bytes, r.max.bytes)
	}
	return ""
}

// claim is a wish for room.
type claim struct {
	amount
	own    amount // what the transaction that asks has written before
	open   bool   // it is told when the transaction has ended
	force  bool   // whether there is room or not
	shared bool   // one measurement at a time is enough
}

// take reserves room and says "", or else why there is none.
func (r *room) take(ctx context.Context, q querier, c claim) (why string, err error) {
	if !r.bounded() {
		return "", nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if (time.Since(r.at) >= measureEvery || r.full(c.amount) != "") && !(c.shared && r.measuring) && r.pay() {
		if err := r.measure(ctx, q, c.own); err != nil {
			return "", err
		}
	}
	if why := r.full(c.amount); why != "" && !c.force {
		return why, nil
	}
	r.level.amount, r.written, r.used = r.level.plus(c.amount), r.written.plus(c.amount), r.used.plus(c.amount)
	if c.open {
		r.open = r.open.plus(c.amount)
	}
	return "", nil
}

// pay reports whether it is time to measure, such that this takes at most its
// share of the time, as long as one takes no more than what may be owed. The first
// one is free.
func (r *room) pay() bool {
	now := time.Now()
	r.saved = min(measureAhead, r.saved+now.Sub(r.savedAt)/measureShare)
	r.savedAt = now
	return r.saved > 0
}

// spend takes what a measurement took from what is saved. What that leaves owed is
// bounded: until it is paid, a full outbox stays so for its writers, whatever a relay
// does meanwhile.
func (r *room) spend(d time.Duration) { r.saved = max(r.saved-d, -measureOwed) }

// measure is called with the lock held, and gives it up meanwhile.
func (r *room) measure(ctx context.Context, q querier, own amount) error {
	first, before, open, g := r.at.IsZero(), r.written, r.open.minus(own), r.gauge
	r.measuring = true
	r.mu.Unlock()
	start := time.Now()
	lv, g, err := g.measure(ctx, q, r.d, r.max.rows, r.max.bytes >= 0)
	r.mu.Lock()
	r.measuring = false
	if !first {
		r.spend(time.Since(start))
	}
	if err != nil {
		return fmt.Errorf("outbox: measure how full it is (was outbox.Migrate run?): %w", err)
	}
	if r.at.After(start) {
		return nil // another one was later, and is done already
	}
	since := r.written.minus(before)
	lv.amount = lv.plus(open).plus(since) // what is not committed yet is not seen
	r.gauge, r.level, r.at, r.used = g, lv, time.Now(), since
	left := r.max.minus(lv.amount)
	r.grant = amount{max(left.rows, 0) / roomShare, max(left.bytes, 0) / roomShare}
	return nil
}

// wait returns once there is room for a message, and reserves it.
func (r *room) wait(ctx context.Context, db *sql.DB) error {
	for full := false; ; full = true {
		why, err := r.take(ctx, db, claim{amount: amount{rows: 1}, open: true, shared: true})
		if err != nil && (ctx.Err() == nil || !full) {
			return err
		}
		if err == nil && why == "" {
			return nil
		}
		if !full {
			r.setBlocked(1)
			defer r.setBlocked(-1)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: until the context ended: %s: see that a relay publishes them, or raise the bound: %w",
				ErrOutboxFull, why, ctx.Err())
		case <-time.After(waitPoll):
		}
	}
}

func (r *room) setBlocked(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked += n
}

// ended notes that a transaction, which has taken n, has ended.
func (r *room) ended(n amount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = r.open.minus(n)
}

// noteRejected counts messages that were refused.
func (r *room) noteRejected(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rejected += uint64(n)
}

// noteShed counts dropped messages by topic and logs them, at most once a second
// for each.
func (r *room) noteShed(log *slog.Logger, dropped map[string]uint64, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, n := range dropped {
		t := r.shed[topic]
		if t == nil {
			t = &shedTopic{}
			r.shed[topic] = t
		}
		if t.dropped += n; time.Since(t.logged) >= time.Second {
			t.logged = time.Now()
			log.Warn("outbox: full: sheddable messages dropped", "topic", topic, "since_start", t.dropped, "why", why)
		}
	}
}

// Stats is what one process knows of an outbox.
type Stats struct {
	// Rows, Bytes and Oldest are those that Config bounds, as of the last
	// measurement, which writes make, and with this process's writes since. Rows
	// can be too high while far below its bound; Bytes is 0 without a bound.
	Rows, Bytes int64
	Oldest      time.Duration
	Shed        map[string]uint64 // messages that the policy Shed dropped, by topic
	Rejected    uint64            // messages refused with ErrOutboxFull
	Blocked     int               // calls of Tx that wait for room
}

// Stats is a snapshot. Shed and Rejected count since the outbox was made.
func (o *Outbox) Stats() Stats {
	r := o.room
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Rows: r.level.rows, Bytes: r.level.bytes, Oldest: r.level.oldest, Shed: map[string]uint64{},
		Rejected: r.rejected, Blocked: r.blocked}
	for topic, t := range r.shed {
		s.Shed[topic] = t.dropped
	}
	return s
}
