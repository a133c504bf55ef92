package outbox

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	pageBytes    = 8 << 20 // a page ends early when its messages weigh that much
	heldPages    = 200     // so many pages of held rows are passed over, then the partition waits, and says so
	checkedPages = 10      // after a takeover, so many are looked up in Keys
	firstBackoff = 50 * time.Millisecond
)

// partition relays one partition. One goroutine owns it.
type partition struct {
	r     *Relay
	sql   *partitionSQL
	owner string
	lease lease
	w     *window

	pending settlement // published, not yet deleted
	checks  int        // pages left to look up in Keys
	swept   time.Time
	down    bool // the last step failed: log the next success, not each failure
	full    bool // too many rows are held: logged once, not at each step

	noted   map[int64]string // the notes in amends_outbox_blocked: rows, and their keys here
	notedAt time.Time
}

// row is a message in the table. err tells why it cannot be read as one.
type row struct {
	id  int64
	msg Message
	err error
}

// key is what holds are by: the message's key, or the message where it has none.
func (r *row) key() string {
	if r.msg.Key != "" {
		return r.msg.Key
	}
	return "\x00" + r.msg.ID // no key holds a NUL
}

// run takes the partition whenever it is free, and works as long as it has it.
func (p *partition) run(ctx context.Context) {
	wake, unsubscribe := p.r.o.subscribe()
	defer unsubscribe()
	for ctx.Err() == nil {
		ok, err := p.lease.acquire(ctx, p.r.db, p.owner)
		p.note(ctx, err)
		if !ok {
			pause(ctx, jitter(min(p.lease.length/3, time.Second)))
			continue
		}
		p.r.count.taken.Add(1)
		p.work(ctx, wake)
	}
}

// work relays until the lease is lost or ctx ends.
func (p *partition) work(ctx context.Context, wake <-chan struct{}) {
	p.w = newWindow(p.r.cfg.CommitTime)
	p.w.crowd = 2 * p.r.cfg.Batch
	p.checks = checkedPages
	p.noted, p.notedAt = nil, time.Time{}
	p.swept = time.Now()
	poll, failures := p.r.cfg.PollMin, 0
	for ctx.Err() == nil {
		wait, err := p.step(ctx)
		if errors.Is(err, errLost) {
			p.r.count.lost.Add(1)
			p.r.cfg.Logger.Warn("outbox: relay: lost a partition", "partition", p.lease.part, "epoch", p.lease.epoch)
			return
		}
		p.note(ctx, err)
		switch {
		case err != nil:
			failures++
			pause(ctx, p.backoff(failures))
			continue
		case wait == stalled:
			pause(ctx, p.untilDue(p.r.cfg.PollMax))
		case wait == idle:
			if !p.idle(ctx, wake, p.untilDue(poll)) {
				poll = min(2*poll, p.r.cfg.PollMax)
				continue
			}
		}
		poll, failures = p.r.cfg.PollMin, 0
	}
	p.giveBack(ctx)
}

func (p *partition) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := p.lease.release(ctx, p.r.db); err != nil {
		// The lease ends by itself; the successor only waits a little longer.
		p.r.cfg.Logger.Warn("outbox: relay: give a partition back", "partition", p.lease.part, "error", err)
	}
}

// outlook is what a step leaves to do.
type outlook uint8

const (
	busy    outlook = iota // go on at once
	idle                   // nothing until a wake-up or the next poll
	stalled                // nothing until a hold ends; a wake-up changes nothing
)

// step reads a page, publishes and deletes it.
func (p *partition) step(ctx context.Context) (outlook, error) {
	if err := p.settle(ctx); err != nil {
		return busy, err
	}
	if err := p.lease.ensure(ctx, p.r.db); err != nil {
		return busy, err
	}
	if err := p.report(ctx); err != nil {
		return busy, err
	}
	now := time.Now()
	p.w.forget(now)
	p.w.retry(now)
	if now.Sub(p.swept) >= p.r.cfg.Sweep {
		p.swept = now
		p.w.sweep()
	}
	if limit := heldPages * p.r.cfg.Batch; len(p.w.held) >= limit {
		p.w.setApart(limit)
	}
	if full := len(p.w.held) >= heldPages*p.r.cfg.Batch; full != p.full {
		p.full = full
		p.r.cfg.Logger.Warn("outbox: relay: rows held back behind a message of their key fill the memory of a partition",
			"partition", p.lease.part, "held", len(p.w.held), "waits", full)
	}
	if p.full {
		return stalled, nil
	}
	page, err := p.read(ctx, p.w.cursor)
	if err != nil {
		return busy, err
	}
	if late, err := p.late(ctx); late || err != nil {
		return busy, err
	}
	if len(page) == 0 {
		return idle, nil
	}
	return p.relay(ctx, page)
}

// late asks what has appeared behind the cursor, where there were gaps. It has
// to come after the read of a page: what that page shows was then already there.
func (p *partition) late(ctx context.Context) (bool, error) {
	if len(p.w.gaps) == 0 {
		return false, nil
	}
	floor := p.w.floor()
	if floor >= p.w.cursor {
		return false, nil
	}
	query, args := p.but(p.sql.ids, p.sql.idsBut, floor, p.w.cursor)
	rows, err := p.r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close() // its error is in rows.Err
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return false, err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	if p.w.late(ids) {
		p.r.count.late.Add(1)
		return true, nil
	}
	return false, nil
}

// but picks the statement that leaves out the keys that are set apart, if any,
// and its arguments: these, and those keys.
func (p *partition) but(all, but string, args ...any) (string, []any) {
	apart := p.w.apart()
	if len(apart) == 0 {
		return all, args
	}
	for _, key := range apart {
		args = append(args, []byte(key))
	}
	return withIn(but, len(apart)), args
}

// read reads a page behind an id.
func (p *partition) read(ctx context.Context, after int64) (page []row, err error) {
	query, args := p.but(p.sql.read, p.sql.readBut, after)
	rows, err := p.r.db.QueryContext(ctx, query, append(args, p.r.cfg.Batch)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() // its error is in rows.Err
	weight := 0
	for weight < pageBytes && rows.Next() {
		r, err := scanRow(rows)
		if err != nil {
			return nil, err
		}
		weight += r.msg.size()
		page = append(page, r)
	}
	return page, rows.Err()
}

func scanRow(rows *sql.Rows) (row, error) {
	var r row
	var created int64
	var id, key, headers, idem []byte
	if err := rows.Scan(&r.id, &id, &r.msg.Topic, &key, &r.msg.Body, &headers, &idem, &created); err != nil {
		return row{}, err
	}
	r.msg.ID, r.msg.Key, r.msg.IdempotencyKey = string(id), string(key), string(idem)
	r.msg.CreatedAt = time.UnixMicro(created)
	r.msg.Headers, r.err = decodeHeaders(headers)
	return r, nil
}

// note logs the first of a series of errors, and its end.
func (p *partition) note(ctx context.Context, err error) {
	switch {
	case err != nil && !p.down && ctx.Err() == nil:
		p.down = true
		p.r.cfg.Logger.Error("outbox: relay: database: trying again", "partition", p.lease.part, "error", err)
	case err == nil && p.down:
		p.down = false
		p.r.cfg.Logger.Info("outbox: relay: database: works again", "partition", p.lease.part)
	}
}

// backoff doubles with each failure up to MaxBackoff, less up to a quarter.
func (p *partition) backoff(failures int) time.Duration {
	d := firstBackoff << min(failures-1, 20)
	return jitter(min(d, p.r.cfg.MaxBackoff))
}

// untilDue is how long to wait: at most limit, and never so long that the lease
// could end or a hold be kept waiting.
func (p *partition) untilDue(limit time.Duration) time.Duration {
	limit = min(limit, p.lease.length/4)
	if !p.w.due.IsZero() {
		limit = min(limit, max(time.Until(p.w.due), time.Millisecond))
	}
	return limit
}

// idle waits for a wake-up, and reports whether there was one.
func (p *partition) idle(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func jitter(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d - rand.N(d/4)
}
