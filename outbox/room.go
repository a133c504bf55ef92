package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	countEvery   = 250 * time.Millisecond // how old the estimate may be while there is room
	recountAfter = 20 * time.Millisecond  // and when there seems to be none
	countShare   = 20                     // counting takes at most 1/20 of the time
	waitPoll     = 20 * time.Millisecond  // how often a blocked Tx looks for room
)

// room estimates how many rows the outbox holds.
type room struct {
	d    *Dialect
	max  int64 // negative: no bound
	shed atomic.Uint64

	mu       sync.Mutex
	rows     int64 // at the last count, plus what was written here since
	written  int64 // here, ever
	open     int64 // reserved by Tx for transactions that have not ended
	counted  time.Time
	took     time.Duration // the last exact count
	counting bool
	logged   time.Time // the last line about shedding
}

func newRoom(d *Dialect, maxRows int) *room { return &room{d: d, max: int64(maxRows)} }

// take reserves n rows and reports whether there is room for them. force takes
// them in any case.
func (r *room) take(ctx context.Context, q querier, n int64, force bool) (bool, error) {
	if r.max < 0 {
		return true, nil
	}
	if err := r.refresh(ctx, q, n); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows+n > r.max && !force {
		return false, nil
	}
	r.rows += n
	r.written += n
	return true, nil
}

// refresh counts again when the estimate is too old for what n rows need.
func (r *room) refresh(ctx context.Context, q querier, n int64) error {
	r.mu.Lock()
	age := countEvery
	if r.rows+n > r.max {
		age = recountAfter
	}
	age = max(age, countShare*r.took)
	if r.counting || time.Since(r.counted) < age {
		r.mu.Unlock()
		return nil
	}
	r.counting = true
	before, open := r.written, r.open // rows that are not committed yet are not seen
	r.mu.Unlock()

	start := time.Now()
	rows, err := countUpTo(ctx, q, r.d, r.max)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.counting = false
	if err != nil {
		return fmt.Errorf("outbox: count the rows: %w", err)
	}
	r.rows = rows + open + r.written - before
	r.counted, r.took = time.Now(), time.Since(start)
	return nil
}

// wait returns once there is room for a row, and reserves it until done.
func (r *room) wait(ctx context.Context, db *sql.DB) error {
	for full := false; ; full = true {
		ok, err := r.take(ctx, db, 1, false)
		if err != nil && (ctx.Err() == nil || !full) {
			return err
		}
		if ok {
			r.setOpen(1)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: no room among %d rows until the context ended: %w", ErrOutboxFull, r.max, ctx.Err())
		case <-time.After(waitPoll):
		}
	}
}

// done ends the reservation of a transaction.
func (r *room) done() { r.setOpen(-1) }

func (r *room) setOpen(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += n
}

// countUpTo counts the rows of all partitions. The distance of the lowest and
// highest id is at least their number and costs nothing, so the rows themselves
// are counted only when that does not answer whether there are fewer than most.
func countUpTo(ctx context.Context, q querier, d *Dialect, most int64) (int64, error) {
	var upper int64
	for p := range d.part {
		var low, high sql.NullInt64
		if err := q.QueryRowContext(ctx, d.part[p].span).Scan(&low, &high); err != nil {
			return 0, err
		}
		if high.Valid {
			upper += high.Int64 - low.Int64 + 1
		}
	}
	if upper <= most/2 {
		return upper, nil
	}
	return countRows(ctx, q, d)
}

func countRows(ctx context.Context, q querier, d *Dialect) (int64, error) {
	var rows int64
	for p := range d.part {
		var n int64
		if err := q.QueryRowContext(ctx, d.part[p].count).Scan(&n); err != nil {
			return 0, err
		}
		rows += n
	}
	return rows, nil
}

// admit takes room for messages that are written in tx and answers which to
// store. Sheddable ones may be left out; any other without room is an error.
func (o *Outbox) admit(ctx context.Context, tx *sql.Tx, msgs []Message) ([]Message, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	ok, err := o.room.take(ctx, tx, int64(len(msgs)), false)
	if err != nil {
		return nil, err
	}
	if ok {
		return msgs, nil
	}
	let := o.isAdmitted(tx)
	kept := make([]Message, 0, len(msgs))
	dropped := uint64(0)
	for _, m := range msgs {
		switch p := o.policy(m.Topic); {
		case p == Shed && m.Sheddable:
			dropped++
		case p == Block && let:
			kept = append(kept, m)
		default:
			return nil, fmt.Errorf("%w: topic %q (policy %v): the bound is %d rows: see that a relay publishes them, "+
				"or raise Config.MaxRows", ErrOutboxFull, m.Topic, p, o.cfg.MaxRows)
		}
	}
	if _, err := o.room.take(ctx, tx, int64(len(kept)), true); err != nil {
		return nil, err
	}
	o.room.noteShed(o.log, dropped)
	return kept, nil
}

// noteShed counts dropped messages and logs them, at most once a second.
func (r *room) noteShed(log *slog.Logger, n uint64) {
	if n == 0 {
		return
	}
	total := r.shed.Add(n)
	r.mu.Lock()
	due := time.Since(r.logged) >= time.Second
	if due {
		r.logged = time.Now()
	}
	r.mu.Unlock()
	if due {
		log.Warn("outbox: full: sheddable messages dropped", "since_start", total, "max_rows", r.max)
	}
}
