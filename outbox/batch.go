package outbox

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// batch is one page on its way: what becomes of each row.
type batch struct {
	send []row   // to publish, in order
	errs []error // the answers to send
	gone []int64 // to delete without publishing: in the log already, or duplicates
	held []row   // behind a key that failed
	last int64   // the last id that the batch covers

	aside []setAside // to put aside, unless an earlier message of their key has failed
}

// relay publishes a page and deletes what was acknowledged.
func (p *partition) relay(ctx context.Context, page []row) (outlook, error) {
	b, err := p.sort(ctx, page)
	if err != nil {
		return busy, err
	}
	if len(b.send) > 0 {
		// A relay that was stopped for longer than its lease notices it here.
		if err := p.lease.ensure(ctx, p.r.db); err != nil {
			return busy, err
		}
		err = p.send(ctx, b, len(page) == p.r.cfg.Batch)
	}
	if stuck := p.apply(ctx, b); stuck || errors.Is(err, errLost) {
		return stalled, err
	}
	ids := make([]int64, 0, len(page))
	for _, r := range page {
		if r.id <= b.last {
			ids = append(ids, r.id)
		}
	}
	p.w.saw(ids, time.Now())
	p.w.cursor = b.last
	for _, r := range b.held {
		p.w.held[r.id] = r.key()
	}
	if len(page) == p.r.cfg.Batch {
		p.load.rows = len(page)
	}
	if err != nil || p.ahead != nil && !p.pending.moves() { // it is deleted while the next page is published
		return busy, err
	}
	if len(page) < p.r.cfg.Batch && p.owe() {
		return busy, nil
	}
	began := time.Now()
	err = p.settle(ctx)
	p.load.busy += time.Since(began)
	return busy, err
}

// sort decides which rows of a page are published. All are of the table, or all
// are of those aside.
func (p *partition) sort(ctx context.Context, page []row) (*batch, error) {
	b := &batch{}
	p.checkLane(page)
	away, err := p.keysAside(ctx, page)
	if err != nil {
		return nil, err
	}
	marked := p.alreadyAcked(ctx, page)
	seen := p.alreadySeen(ctx, page)
	fresh := map[string]bool{} // idempotency keys that are in this batch
	stay := p.staying()
	for i, r := range page {
		idem := idempotency(&r.msg)
		if idem != "" && fresh[idem] && !p.w.blocked(r.key()) {
			break // a duplicate within the page: decide once the first one is published
		}
		b.last = r.id
		switch {
		case marked != nil && marked[p.ackID(&page[i])]:
			b.gone = append(b.gone, r.id)
			p.r.count.skipped.Add(1)
		case idem != "" && seen[idem]:
			b.gone = append(b.gone, r.id)
			p.r.count.duplicates.Add(1)
		case p.waits(b, r, away, stay):
		default:
			if idem != "" && p.r.keys.keys != nil {
				fresh[idem] = true
			}
			b.send = append(b.send, r)
		}
	}
	return b, nil
}

// waits finds a place for a row that is not to be sent now, if it is such a one.
// away are the keys that have rows aside, or, where it says false, will have if no
// earlier message of theirs in this page fails.
func (p *partition) waits(b *batch, r row, away, stay map[string]bool) bool {
	key := r.key()
	known, behind := away[key]
	switch {
	case r.aside:
		return false
	case behind:
		b.aside = append(b.aside, setAside{row: r, known: known})
	case p.w.blocked(key) && p.spill && !stay[key]:
		b.aside = append(b.aside, p.spilled(r))
		away[key] = false
	case p.w.blocked(key):
		b.held = append(b.held, r)
	case !r.msg.NotBefore.IsZero():
		b.aside = append(b.aside, setAside{row: r})
		away[key] = false
	default:
		return false
	}
	return true
}

// staying are the keys of which this pass has left a row in the table: what comes
// behind that stays there, too, until the next pass begins.
func (p *partition) staying() map[string]bool {
	if !p.spill {
		return nil
	}
	stay := map[string]bool{}
	for _, key := range p.w.held {
		stay[key] = true
	}
	return stay
}

// spilled is a row of a held key, the first that there is, to be put aside.
func (p *partition) spilled(r row) setAside {
	h := p.w.keys[r.key()]
	s := setAside{row: r, wait: max(time.Until(h.until), time.Microsecond)}
	if h.cause.row == r.id {
		s.failure = failure{attempts: h.attempts, err: h.cause.err}
	}
	p.w.resolved(r.key())
	return s
}

// ackID names a row for Keys. The row's id alone would be given out again after
// the table was made anew, the message's id alone may come twice. Rows of a log
// have no ids but the message's, and those of rows aside are apart.
func (p *partition) ackID(r *row) string {
	if p.log != nil && !r.aside {
		return r.msg.ID
	}
	if r.aside {
		return "a" + strconv.FormatInt(r.id, 10) + ":" + r.msg.ID
	}
	return strconv.FormatInt(r.id, 10) + ":" + r.msg.ID
}

// idempotency is the key for Keys of a message, or "".
func idempotency(m *Message) string {
	if m.IdempotencyKey == "" {
		return ""
	}
	return m.Topic + "\x00" + m.IdempotencyKey
}

// alreadyAcked finds rows that the owner before us published and did not delete.
func (p *partition) alreadyAcked(ctx context.Context, page []row) map[string]bool {
	if p.checks == 0 || p.r.keys.keys == nil {
		return nil
	}
	p.checks--
	ids := make([]string, len(page))
	for i := range page {
		ids[i] = p.ackID(&page[i])
	}
	return p.r.keys.acked(ctx, p.lease.part, ids)
}

func (p *partition) alreadySeen(ctx context.Context, page []row) map[string]bool {
	if p.r.keys.keys == nil {
		return nil
	}
	var keys []string
	for i := range page {
		if k := idempotency(&page[i].msg); k != "" {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for i, yes := range p.r.keys.seen(ctx, keys) {
		if yes {
			seen[keys[i]] = true
		}
	}
	return seen
}

// apply takes the answers over: into what is to be settled and into the window.
// It reports true when nothing got through and many rows are held already: then
// it is no longer about single keys, and reading on would only hold more.
func (p *partition) apply(ctx context.Context, b *batch) (stuck bool) {
	p.pending.remove = append(p.pending.remove, b.gone...)
	var failed []int
	blocking := map[string]bool{} // keys of which a message goes aside as poison
	for i, r := range b.send {
		err := b.errs[i]
		switch {
		case err == nil:
			p.pending.remove = append(p.pending.remove, r.id)
			p.r.count.published.Add(1)
			p.w.resolved(r.key())
		case blocking[r.key()]:
			b.aside = append(b.aside, setAside{row: r})
		case p.isDead(err):
			p.bury(&r, err)
		case errors.Is(err, ErrPoison):
			blocking[r.key()] = true
			b.aside = append(b.aside, p.blocks(ctx, r, err))
		default:
			failed = append(failed, i)
		}
	}
	p.holdFailed(ctx, b, failed)
	if len(failed) > 0 && len(failed) == len(b.send) && len(p.w.held) >= p.r.cfg.Batch {
		return true
	}
	for _, i := range failed {
		b.held = append(b.held, b.send[i])
	}
	p.putAside(b)
	return false
}

// blocks is a row that blocks or parks its key.
func (p *partition) blocks(ctx context.Context, r row, err error) setAside {
	r.attempts = p.w.attempts(r.key())
	p.w.resolved(r.key())
	l := p.fail(ctx, r, err)
	return setAside{row: r, wait: l.wait, failure: l.failure}
}

// putAside takes over what goes aside. A key of which an earlier message has just
// failed, and stays in the table, is held there.
func (p *partition) putAside(b *batch) {
	for _, a := range b.aside {
		if p.w.blocked(a.key()) && !a.known {
			b.held = append(b.held, a.row)
			continue
		}
		p.pending.aside = append(p.pending.aside, a)
		p.pending.remove = append(p.pending.remove, a.id)
	}
}

func (p *partition) isDead(err error) bool {
	return errors.Is(err, ErrPoison) && p.r.cfg.Poison == DeadLetter
}

func (p *partition) bury(r *row, err error) {
	n := max(p.w.attempts(r.key()), r.attempts) + 1
	p.pending.bury = append(p.pending.bury, burial{row: *r, attempts: n, err: err})
	p.w.resolved(r.key())
	p.r.count.failures.Add(1)
	p.r.cfg.Logger.Error("outbox: relay: message moved to the dead letters",
		"topic", r.msg.Topic, "id", r.msg.ID, "error", clip(err.Error(), maxError))
}

// holdFailed holds back the keys of the rows that failed, of which it is given
// the places in b.send. All keys of one batch that failed as often come due
// together, to be tried in one batch again.
func (p *partition) holdFailed(ctx context.Context, b *batch, failed []int) {
	now := time.Now()
	waits := map[int]time.Duration{}
	var first error
	for _, i := range failed {
		r, err := &b.send[i], b.errs[i]
		key := r.key()
		if p.w.blocked(key) {
			continue // an earlier message of the key has just failed
		}
		if errors.Is(err, ErrHeld) { // behind one that is out of the way now
			p.w.hold(key, p.w.attempts(key), now)
			continue
		}
		p.r.count.failures.Add(1)
		n := p.w.attempts(key) + 1
		if _, ok := waits[n]; !ok {
			waits[n] = p.backoff(n)
		}
		p.w.hold(key, n, now.Add(waits[n]))
		p.w.blame(key, cause{row: r.id, id: r.msg.ID, topic: r.msg.Topic, key: r.msg.Key, since: now,
			err: clip(err.Error(), maxError)})
		if first == nil && n == 1 {
			first = err
		}
	}
	if first != nil && ctx.Err() == nil {
		p.r.cfg.Logger.Warn("outbox: relay: publishing failed: trying again",
			"partition", p.lease.part, "error", clip(first.Error(), maxError))
	}
}
