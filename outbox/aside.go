package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// What has to wait for longer is put aside, out of the partition's table, into
// amends_outbox_aside: a message with NotBefore; one that blocks its key, or parks
// it; and whatever comes behind one of these, of the same key.
//
// One rule keeps the order. While a key has rows aside, its later messages go
// there too, each due no earlier than the one before it. So within a key due_at
// never falls as the ids grow, and a page of what is due, by due_at and id, has
// each key's messages in order and never one without those before it. The owner
// of the partition alone puts rows there, in the transaction that takes them from
// the table, and publishes them from there as it does from the table.

// forever is the wait of a parked message.
const forever time.Duration = math.MaxInt64

// setAside is a row to be put aside.
type setAside struct {
	row
	known   bool          // its key has rows aside, or may have
	wait    time.Duration // at least so long, whatever its NotBefore
	failure failure
}

// later is a row aside that failed: it and what is behind it wait.
type later struct {
	row
	wait    time.Duration
	failure failure
}

// failure is why a row is aside, when it has failed.
type failure struct {
	attempts int
	poison   bool
	err      string // at most 4 KiB
}

// dueAt is the end of a wait.
func dueAt(now int64, wait time.Duration) int64 {
	switch wait {
	case 0:
		return 0
	case forever:
		return parked
	}
	return now + micros(wait)
}

// relayDue publishes a page of the rows aside whose time has come, if it is time
// to look. It reports whether there were any.
func (p *partition) relayDue(ctx context.Context) (bool, error) {
	if !p.aside || time.Now().Before(p.asideAt) {
		return false, nil
	}
	page, err := p.readPage(ctx, p.r.o.d.aside.read, asideReader(), p.lease.part, p.r.cfg.Batch)
	if err != nil {
		return false, err
	}
	if len(page) == 0 {
		return false, p.lookAside(ctx)
	}
	b, err := p.sort(ctx, page)
	if err != nil {
		return false, err
	}
	if len(b.send) > 0 {
		if err := p.lease.ensure(ctx, p.r.db); err != nil {
			return false, err
		}
		p.publish(ctx, b, p.lease.left())
	}
	p.applyDue(ctx, b)
	if len(page) == p.r.cfg.Batch {
		p.load.rows += len(page)
	}
	began := time.Now()
	err = p.settle(ctx)
	p.load.busy += time.Since(began)
	return true, err
}

func asideReader() func(scan scanner) (row, error) {
	attempts := 0
	read := rowReader(&attempts)
	return func(scan scanner) (row, error) {
		r, err := read(scan)
		r.aside, r.attempts = true, attempts
		return r, err
	}
}

// lookAside finds out when to look again: when the next row is due, and at the
// latest after PollMax, as operators change that.
func (p *partition) lookAside(ctx context.Context) error {
	var left sql.NullInt64
	if err := p.r.db.QueryRowContext(ctx, p.r.o.d.aside.next, p.lease.part).Scan(&left); err != nil {
		return fmt.Errorf("outbox: look at what is aside (was outbox.Migrate run?): %w", err)
	}
	p.aside = left.Valid
	wait := p.r.cfg.PollMax
	if us := max(left.Int64, 0); us < micros(wait) {
		wait = time.Duration(us)*time.Microsecond + time.Millisecond // what the clock shows at least
	}
	p.asideAt = time.Now().Add(wait)
	return nil
}

// keysAside answers the keys of a page that have rows aside. Nobody but this
// partition's owner adds any.
func (p *partition) keysAside(ctx context.Context, page []row) (map[string]bool, error) {
	away := map[string]bool{}
	if !p.aside || len(page) == 0 || page[0].aside {
		return away, nil
	}
	args, seen := []any{p.lease.part}, map[string]bool{"": true}
	for i := range page {
		if key := page[i].msg.Key; !seen[key] {
			seen[key] = true
			args = append(args, []byte(key))
		}
	}
	if len(args) == 1 {
		return away, nil
	}
	err := eachRow(ctx, p.r.db, withIn(p.r.o.d.aside.keys, len(args)-1), args, func(scan scanner) error {
		var key []byte
		err := scan(&key)
		away[string(key)] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("outbox: look for keys aside (was outbox.Migrate run?): %w", err)
	}
	return away, nil
}

// applyDue takes the answers over for rows aside.
func (p *partition) applyDue(ctx context.Context, b *batch) {
	p.pending.done = append(p.pending.done, b.gone...)
	failed := map[string]bool{} // keys that wait now
	passed := len(b.gone)
	for i := range b.send {
		r, err := b.send[i], b.errs[i]
		switch {
		case err == nil:
			p.pending.done = append(p.pending.done, r.id)
			p.r.count.published.Add(1)
			passed++
		case failed[r.key()] || errors.Is(err, ErrHeld):
			// It stays, behind a row that waits now, or that is out of the way.
		case p.isDead(err):
			p.bury(&r, err)
			passed++
		default:
			failed[r.key()] = true
			p.pending.later = append(p.pending.later, p.fail(ctx, r, err))
		}
	}
	if passed > 0 || len(b.send) < p.r.cfg.Batch {
		p.futile = 0
	} else if p.futile++; p.futile > 1 { // it is not about single keys: do not try them all, one page after the other
		p.asideAt = time.Now().Add(p.backoff(p.futile))
	}
}

// fail decides how long a row waits that failed and is no dead letter.
func (p *partition) fail(ctx context.Context, r row, err error) later {
	n := r.attempts + 1
	l := later{row: r, wait: p.backoff(n), failure: failure{attempts: n, err: clip(err.Error(), maxError)}}
	p.r.count.failures.Add(1)
	if l.failure.poison = errors.Is(err, ErrPoison); l.failure.poison {
		l.wait = p.r.cfg.BlockRetry
		if p.r.cfg.Poison == ParkKey {
			l.wait = forever
		}
		p.r.cfg.Logger.Error("outbox: relay: message blocks its key", "policy", p.r.cfg.Poison,
			"topic", r.msg.Topic, "id", r.msg.ID, "error", l.failure.err)
	} else if n == 1 && ctx.Err() == nil {
		p.r.cfg.Logger.Warn("outbox: relay: publishing failed: trying again",
			"partition", p.lease.part, "error", l.failure.err)
	}
	return l
}

// moveAside puts rows aside, in order, and puts off those there that failed.
func (p *partition) moveAside(ctx context.Context, tx *sql.Tx) error {
	s := &p.pending
	if len(s.aside) == 0 && len(s.later) == 0 {
		return nil
	}
	sqls := &p.r.o.d.aside
	var now int64
	if err := tx.QueryRowContext(ctx, sqls.now).Scan(&now); err != nil {
		return err
	}
	for _, l := range s.later {
		if err := p.postpone(ctx, tx, l, dueAt(now, l.wait)); err != nil {
			return err
		}
	}
	slices.SortStableFunc(s.aside, func(a, b setAside) int { return int(min(max(a.id-b.id, -1), 1)) })
	last := map[string]int64{} // due_at of a key's last row
	dues := make([]int64, len(s.aside))
	for i, a := range s.aside {
		due, err := p.lastDue(ctx, tx, &a, last)
		if err != nil {
			return err
		}
		dues[i] = max(due, dueAt(now, a.wait), notBefore(&a.msg))
		if a.msg.Key != "" {
			last[a.msg.Key] = dues[i]
		}
	}
	return p.insertAside(ctx, tx, now, dues)
}

// lastDue is due_at of the last row aside of a row's key, 0 when there is none.
func (p *partition) lastDue(ctx context.Context, tx *sql.Tx, a *setAside, last map[string]int64) (due int64, err error) {
	due, ok := last[a.msg.Key]
	if ok || !a.known || a.msg.Key == "" {
		return due, nil
	}
	err = tx.QueryRowContext(ctx, p.r.o.d.aside.last, p.lease.part, []byte(a.msg.Key)).Scan(&due)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return due, err
}

// insertAside stores the rows to be put aside, several with one statement.
func (p *partition) insertAside(ctx context.Context, tx *sql.Tx, now int64, dues []int64) error {
	for i := 0; i < len(dues); {
		var args []any
		n, weight := 0, 0
		for ; i < len(dues) && n < insertRows && (n == 0 || weight < insertBytes); i++ {
			a := &p.pending.aside[i]
			failedAt := now
			if a.failure.attempts == 0 {
				failedAt = 0
			}
			args = append(append(append(args, p.lease.part), a.values()...), notBefore(&a.msg), dues[i],
				a.failure.attempts, flag(a.failure.poison), []byte(a.failure.err), failedAt)
			weight += a.msg.size()
			n++
		}
		sqls := &p.r.o.d.aside
		if _, err := tx.ExecContext(ctx, sqls.add+sqls.addRow+strings.Repeat(", "+sqls.addRow, n-1), args...); err != nil {
			return fmt.Errorf("put messages aside (was outbox.Migrate run?): %w", err)
		}
	}
	return nil
}

// postpone makes a row and what is behind it, of its key, due no earlier.
func (p *partition) postpone(ctx context.Context, tx *sql.Tx, l later, due int64) (err error) {
	sqls := &p.r.o.d.aside
	if l.msg.Key == "" {
		_, err = tx.ExecContext(ctx, sqls.postponeOne, due, l.id, due)
	} else {
		_, err = tx.ExecContext(ctx, sqls.postpone, due, p.lease.part, []byte(l.msg.Key), due)
	}
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, sqls.failed, l.failure.attempts, flag(l.failure.poison), []byte(l.failure.err), l.id)
	return err
}

// values are a row's columns from msg_id to created_at.
func (r *row) values() []any {
	return []any{[]byte(r.msg.ID), r.msg.Topic, []byte(r.msg.Key), notNil(r.msg.Body), notNil(r.headers),
		[]byte(r.msg.IdempotencyKey), r.msg.CreatedAt.UnixMicro()}
}

// notNil is for columns that are NOT NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// notBefore is the time as it is stored, 0 when there is none.
func notBefore(m *Message) int64 {
	if m.NotBefore.IsZero() {
		return 0
	}
	return m.NotBefore.UnixMicro()
}
