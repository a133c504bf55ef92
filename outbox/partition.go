package outbox

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	pageBytes    = 8 << 20 // a page ends early when its messages weigh that much
	heldPages    = 200     // so many pages of held rows are kept in mind, then they go aside
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
	owed    debt       // since when, if it may wait
	ahead   *ahead     // the page behind the one just published, if it was read already
	load    workload
	checks  int // pages left to look up in Keys
	swept   time.Time
	down    bool // the last step failed: log the next success, not each failure

	aside   bool      // there may be rows aside
	asideAt time.Time // when to look at them next
	futile  int       // pages of them of which nothing got through, in a row
	laneAt  time.Time // when a message in the wrong lane was logged
	spill   bool      // too many rows are held: in the pass under way those of held keys go aside

	noted   map[int64]string // the notes in amends_outbox_blocked: rows, and their keys here
	notedAt time.Time

	told   bool          // a wake-up began what is done now, and not a look at the table of our own
	stream *follower     // SourceTable; nil: the table is polled
	log    *logReader    // SourceLog; nil: the messages are in the table
	nudge  chan struct{} // the source has something; nil: there is none
}

// row is a message in the table. err tells why it cannot be read as one.
type row struct {
	id  int64
	msg Message
	err error

	headers  []byte // as they are stored
	aside    bool   // it is in amends_outbox_aside, and id is of there
	attempts int    // to publish it, as far as is known there
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
	wake, unsubscribe := p.r.o.subscribe(p.lease.part)
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
	p.checks, p.ahead, p.load, p.owed = checkedPages, nil, workload{}, debt{}
	p.noted, p.notedAt = nil, time.Time{}
	p.aside, p.asideAt, p.futile, p.spill, p.told = true, time.Time{}, 0, false, false
	p.swept = time.Now()
	p.resetSource()
	defer p.resetSource()
	poll, failures := time.Duration(0), 0
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
		case wait == busy:
			p.note(ctx, p.rest(ctx))
		case wait == stalled:
			pause(ctx, p.untilDue(p.r.cfg.PollMax))
		case wait == idle:
			p.load, failures = workload{}, 0
			poll = p.nextPoll(poll)
			p.told = p.await(ctx, wake, poll)
			continue
		}
		poll, failures = 0, 0
	}
	if p.log == nil { // what is published and not deleted yet; a log reader's numbers are no ids
		p.note(ctx, p.settle(ctx))
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
	if p.log != nil {
		return p.log.step(ctx)
	}
	if p.ahead == nil {
		if err := p.settleDue(ctx); err != nil {
			return busy, err
		}
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
	worked, err := p.relayDue(ctx)
	if err != nil {
		return busy, err
	}
	next, err := p.relayNext(ctx)
	if worked {
		next = busy
	}
	return next, err
}

// relayNext relays what comes next from the source, or else from the table.
func (p *partition) relayNext(ctx context.Context) (outlook, error) {
	if len(p.w.held) >= heldPages*p.r.cfg.Batch { // in a spill pass they are of keys that have failed since
		if !p.spill {
			p.r.cfg.Logger.Warn("outbox: relay: many rows are held back behind a message of their key: they are put aside",
				"partition", p.lease.part, "rows", len(p.w.held))
		}
		p.spill = true
		p.w.rewind(0)
	}
	if p.stream != nil {
		if done, what, err := p.stream.step(ctx); done || err != nil {
			return what, err
		}
	}
	return p.poll(ctx)
}

// poll reads a page from the table, publishes and deletes it.
func (p *partition) poll(ctx context.Context) (outlook, error) {
	page, err := p.next(ctx)
	if err != nil {
		return busy, err
	}
	if late, err := p.late(ctx); late || err != nil {
		return busy, err
	}
	if p.stream != nil {
		p.stream.read(page)
		defer p.stream.relayed(page)
	}
	if len(page) == 0 {
		p.spill = false
		return idle, p.settleDue(ctx)
	}
	next, err := p.relay(ctx, page)
	if next == busy && err == nil && p.caughtUp(page) {
		return idle, nil
	}
	return next, err
}

// caughtUp tells whether a wake-up comes for whatever is behind a page that was relayed: another look at the table
// would find nothing, and takes the database as long as a message.
func (p *partition) caughtUp(page []row) bool {
	if !p.told || p.stream != nil || p.ahead != nil || len(page) == p.r.cfg.Batch || p.w.cursor != page[len(page)-1].id {
		return false
	}
	weight := 0
	for i := range page {
		weight += page[i].msg.size()
	}
	return weight < pageBytes
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
	if p.aside {
		limit = min(limit, max(time.Until(p.asideAt), time.Millisecond))
	}
	if p.mayOwe() {
		limit = min(limit, max(time.Until(p.owed.until), time.Millisecond))
	}
	return limit
}

// nextPoll is how long to wait for a wake-up before the table is looked at, given the wait before; 0: something
// was found. Who wakes the relay does so for each of its messages: only others', and those that were jumped over,
// are a reason to look soon.
func (p *partition) nextPoll(poll time.Duration) time.Duration {
	switch {
	case poll == 0 || p.told && len(p.w.gaps) > 0:
		return p.r.cfg.PollMin
	case p.told:
		return poll
	}
	return min(2*poll, p.r.cfg.PollMax)
}

// await waits for a wake-up, and reports whether there was one; otherwise it is time for a step. What is owed
// meanwhile it settles by itself, as that needs no look at the table.
func (p *partition) await(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	for until := time.Now().Add(d); ; {
		if p.idle(ctx, wake, p.untilDue(time.Until(until))) {
			return true
		}
		settles := !p.owed.until.IsZero() && !p.mayOwe() && ctx.Err() == nil
		if !settles || !time.Now().Before(until) || p.settle(ctx) != nil { // what fails the next step tries again, and reports
			return false
		}
	}
}

// idle waits for a wake-up, and reports whether there was one.
func (p *partition) idle(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
		return true
	case <-p.nudge:
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
