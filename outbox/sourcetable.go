package outbox

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

// follower reads a partition from a source in place of its table, where the
// messages are too (SourceTable). It has three phases: it polls the table; it
// joins, which is polling with the stream open already; it follows the stream.
//
// Why nothing is lost or reordered on the way from the table to the stream:
//
//   - The stream is opened first. B is where it begins: every transaction is
//     either before B in the order of the commits, or in the stream.
//   - Then the lease is renewed: a commit of our own. It comes behind B, and the
//     server makes commits visible in the order in which they are in the log, so
//     once it has succeeded everything before B is visible.
//   - Then the table is read from its beginning until a page shows its end. So
//     everything before B is now published, or held behind a message of its key.
//   - What of the stream was read from the table meanwhile is in brought, and is
//     passed over when the stream brings it; so is what was read just before, as the
//     source may be behind: see recent. What was held stays in the table, and
//     what the stream brings of a key that is held joins it there.
//   - Of each key the table is read in the order of the commits (see window), and
//     so is the stream: what has been published is always the beginning of a key's
//     messages, whichever of the two it came from.
//
// On the way back nothing is owed: what was published is deleted before anything
// else is read, and everything that is not is still in the table. A delete finds
// its row also when the stream was faster than the row: until it is visible it is
// locked by the transaction that wrote it, and the delete waits for that.
//
// While it follows, the window's cursor is behind all ids. So whatever moves the
// cursor back, because a hold has ended, a sweep is due, or somebody has taken a
// message away, makes it join again, with the same stream.
type follower struct {
	p       *partition
	stream  SourceStream // nil: none is open
	phase   phase
	atEnd   bool // joining: the last page read was the table's last
	end     int64
	rows    []row              // of the stream, not published yet
	brought map[int64]struct{} // read from the table since the stream was opened, and just before
	recent  []int64            // the last that were read from the table while no stream was open
	next    time.Time          // no stream is opened before
	wait    time.Duration      // between two attempts
}

// phase is what a follower reads.
type phase uint8

const (
	polls phase = iota
	joins
	follows
)

const (
	endOfTable   = math.MaxInt64 // the window's cursor while the stream is followed
	maxBrought   = 20_000        // ids in mind; with more the stream is opened anew, later
	maxRecent    = 5_000         // what a source is further behind comes again
	reopenAfter  = 200 * time.Millisecond
	reopenAtMost = 5 * time.Second
)

// reset ends what was: the partition was taken, or is given up.
func (f *follower) reset() {
	if f.stream != nil {
		f.stream.Close()
	}
	*f = follower{p: f.p, wait: reopenAfter}
}

// step does what there is to do before the table is read, and instead of it:
// then it reports true.
func (f *follower) step(ctx context.Context) (done bool, _ outlook, _ error) {
	w := f.p.w
	switch {
	case f.phase == follows && w.cursor == endOfTable:
		o, err := f.follow(ctx)
		return true, o, err
	case f.phase == follows:
		return false, busy, f.join(ctx)
	case f.phase == joins && f.atEnd && w.cursor >= f.end:
		f.phase, w.cursor, w.gaps = follows, endOfTable, nil
		f.p.spill = false // what is held now has rows in the table that come first
		f.wait = reopenAfter
		return true, busy, nil
	case f.phase == polls && f.stream == nil && f.atEnd && !time.Now().Before(f.next):
		f.open()
	}
	if f.phase == polls && f.stream != nil {
		return false, busy, f.join(ctx)
	}
	return false, busy, nil
}

// open opens a stream. That there is none is no error: polling goes on.
func (f *follower) open() {
	stream, err := f.p.r.cfg.Source.Open(f.p.lease.part, "", f.p.stir)
	if err != nil {
		f.later()
		return
	}
	f.stream, f.brought = stream, make(map[int64]struct{}, len(f.recent))
	for _, id := range f.recent {
		f.brought[id] = struct{}{}
	}
	f.recent = nil
}

// later puts the next attempt off, each time for longer.
func (f *follower) later() {
	f.next = time.Now().Add(jitter(f.wait))
	f.wait = min(2*f.wait, reopenAtMost)
}

// join begins the pass over the table behind which the stream can be followed.
func (f *follower) join(ctx context.Context) error {
	until, err := f.p.lease.renew(ctx, f.p.r.db) // the commit of our own: see follower
	if err != nil {
		return err
	}
	f.p.lease.until = until
	f.p.w.restart()
	f.phase, f.atEnd = joins, false
	return nil
}

// read takes note of a page that was read from the table.
func (f *follower) read(page []row) {
	weight := 0
	for i := range page {
		weight += page[i].msg.size()
	}
	f.atEnd = len(page) < f.p.r.cfg.Batch && weight < pageBytes
	f.end = f.p.w.cursor
	if len(page) > 0 {
		f.end = page[len(page)-1].id
	}
}

// relayed takes note of what became of a page that was read from the table.
func (f *follower) relayed(page []row) {
	w := f.p.w
	for _, r := range page {
		switch _, held := w.held[r.id]; {
		case held || r.id > w.cursor:
		case f.stream == nil:
			f.recent = append(f.recent, r.id)
		default:
			f.brought[r.id] = struct{}{}
		}
	}
	if over := len(f.recent) - maxRecent; over > 0 {
		f.recent = slices.Delete(f.recent, 0, over)
	}
	if len(f.brought) > maxBrought {
		f.leave(errors.New("too many rows were read from the table meanwhile"))
	}
}

// follow publishes what the stream brings.
func (f *follower) follow(ctx context.Context) (outlook, error) {
	if len(f.rows) == 0 {
		if err := f.take(); err != nil {
			f.leave(err)
			return busy, nil
		}
	}
	page := f.page()
	if len(page) == 0 {
		return idle, nil
	}
	n, stuck, err := f.p.relayStream(ctx, page)
	if err != nil || stuck {
		return stalled, err
	}
	f.p.r.count.streamed.Add(uint64(n))
	f.rows = f.rows[n:]
	if f.p.owe() {
		return busy, nil
	}
	return busy, f.p.settle(ctx)
}

// take takes over what the stream has.
func (f *follower) take() error {
	txs, err := f.stream.Next()
	if err != nil {
		return err
	}
	f.rows = nil
	for _, tx := range txs {
		for _, from := range tx.Rows {
			r, err := rowFrom(from)
			if err != nil {
				return err
			}
			f.rows = append(f.rows, r)
		}
		if tx.Position != "" {
			f.stream.Settled(tx.Position) // the table holds what is not published
		}
	}
	return nil
}

// page drops what was read from the table, and answers the first rows of the rest.
func (f *follower) page() []row {
	kept := f.rows[:0]
	for _, r := range f.rows {
		if _, ok := f.brought[r.id]; ok {
			delete(f.brought, r.id) // each row comes once
			continue
		}
		kept = append(kept, r)
	}
	f.rows = kept
	return firstPage(f.rows, f.p.r.cfg.Batch)
}

// leave goes back to the table.
func (f *follower) leave(why error) {
	if f.phase == follows {
		f.p.r.count.fallbacks.Add(1)
	}
	f.p.r.cfg.Logger.Info("outbox: relay: the partition is read from its table", "partition", f.p.lease.part, "why", why)
	wait := f.wait
	f.reset()
	f.wait = wait
	f.later()
	f.p.w.restart()
}

// firstPage is as many of the first rows as one batch takes.
func firstPage(rows []row, batch int) []row {
	weight := 0
	for i := range rows {
		if i == batch || weight >= pageBytes {
			return rows[:i]
		}
		weight += rows[i].msg.size()
	}
	return rows
}

// relayStream publishes rows in the order given, whatever their ids, and answers
// how many of them it has dealt with: what they owe is pending then, and what has
// to wait is held. stuck is as in apply; none was dealt with.
func (p *partition) relayStream(ctx context.Context, page []row) (n int, stuck bool, _ error) {
	b, err := p.sort(ctx, page)
	if err != nil {
		return 0, false, err
	}
	if len(b.send) > 0 {
		if err := p.lease.ensure(ctx, p.r.db); err != nil {
			return 0, false, err
		}
		p.publish(ctx, b, p.lease.left())
	}
	if p.apply(ctx, b) {
		return 0, true, nil
	}
	for _, r := range b.held {
		p.w.held[r.id] = r.key()
	}
	for n < len(page) {
		n++
		if page[n-1].id == b.last {
			break
		}
	}
	return n, false, nil
}
