package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	logPages  = 40              // so many pages of a partition that are not settled are in memory
	logBytes  = 8 * pageBytes   // of the messages of a partition that are in memory
	saveEvery = 5 * time.Second // how old the checkpoint may be when only others write to the log
)

var errNoCheckpoint = errors.New("outbox: no checkpoint says where to read the log from: " +
	"the tables are to be converted with binlog.Convert")

// logReader relays a partition whose messages are in the log alone (SourceLog).
// In memory it has what the table has elsewhere: the rows that were read and are
// not settled, with numbers of its own for ids. The checkpoint is the end of the
// last transaction before the first of them, so that whoever goes on there, after
// a crash or a takeover, misses none. It is saved with the epoch verified: a
// relay that lost the partition cannot move it.
type logReader struct {
	p       *partition
	stream  SourceStream
	loaded  bool
	rows    []logRow // by number, from the first that is not settled
	bytes   int
	number  int64  // the last one given out
	taken   string // the end of the last transaction that was taken over whole
	partial int    // rows taken over of the transaction behind taken
	skip    int    // rows of it to pass over, as they were taken from another stream
	settled string // the checkpoint to be
	saved   string // the checkpoint
	savedAt time.Time
	owed    bool // rows of ours were settled since
}

// logRow is a row that was read from the log.
type logRow struct {
	row  row
	gone bool   // published, or buried
	end  string // of its transaction, when it is the last one of that
}

// reset ends what was: the partition was taken, or is given up.
func (l *logReader) reset() {
	if l.stream != nil {
		l.stream.Close()
	}
	*l = logReader{p: l.p}
	// What is owed to rows of the log is forgotten with their numbers: the checkpoint
	// is not behind them, so they come again, here or to whoever owns the partition.
	s := &l.p.pending
	s.remove, s.aside = nil, nil
	s.bury = slices.DeleteFunc(s.bury, func(b burial) bool { return !b.aside })
}

// step is partition.step for a log.
func (l *logReader) step(ctx context.Context) (outlook, error) {
	p := l.p
	if err := l.settle(ctx); err != nil {
		return busy, err
	}
	if err := p.lease.ensure(ctx, p.r.db); err != nil {
		return busy, err
	}
	p.w.retry(time.Now())
	worked, err := p.relayDue(ctx)
	if err != nil {
		return busy, err
	}
	next, err := l.relayNext(ctx)
	if worked {
		next = busy
	}
	return next, err
}

// relayNext relays what comes next from the log.
func (l *logReader) relayNext(ctx context.Context) (outlook, error) {
	p := l.p
	failed := l.fill(ctx) // what is in memory can be published all the same
	page := l.page()
	if len(page) == 0 {
		p.spill = false
		return idle, failed
	}
	n, stuck, err := p.relayStream(ctx, page)
	if err != nil || stuck {
		return stalled, err
	}
	p.w.cursor = page[n-1].id
	p.r.count.streamed.Add(uint64(n))
	if err := l.settle(ctx); err != nil {
		return busy, err
	}
	return busy, failed
}

// page is the next rows behind the window's cursor.
func (l *logReader) page() []row {
	var page []row
	for i := range l.rows {
		if r := &l.rows[i]; r.row.id > l.p.w.cursor && !r.gone {
			page = append(page, r.row)
			if len(page) == l.p.r.cfg.Batch {
				break
			}
		}
	}
	return firstPage(page, l.p.r.cfg.Batch)
}

// fill takes over what the stream has, as long as there is room in memory. What
// takes the room for long are rows behind a message of their key: these go aside.
func (l *logReader) fill(ctx context.Context) error {
	p := l.p
	if len(l.rows) >= logPages*p.r.cfg.Batch || l.bytes >= logBytes {
		if len(p.w.held) >= l.waiting()/2 && !p.spill { // in an outage it is fewer: nothing more is sent
			p.spill = true
			p.r.cfg.Logger.Warn("outbox: relay: many messages are held back behind one of their key: they are put aside",
				"partition", p.lease.part, "messages", len(p.w.held))
			p.w.rewind(0)
		}
		return nil
	}
	if err := l.open(ctx); err != nil {
		return err
	}
	txs, err := l.stream.Next()
	if err != nil { // the next one begins where this ends
		l.drop()
		return nil
	}
	for _, tx := range txs {
		if err := l.take(tx); err != nil {
			l.drop() // what it has not given yet is asked for again
			return err
		}
	}
	return nil
}

func (l *logReader) drop() {
	l.stream.Close()
	l.stream = nil
}

// open goes on where the last stream ended, at first at the checkpoint.
func (l *logReader) open(ctx context.Context) error {
	if !l.loaded {
		var position []byte
		err := l.p.r.db.QueryRowContext(ctx, l.p.r.o.d.source.load, l.p.lease.part).Scan(&position)
		if errors.Is(err, sql.ErrNoRows) {
			return errNoCheckpoint
		}
		if err != nil {
			return fmt.Errorf("outbox: load the checkpoint of partition %d (was outbox.Migrate run?): %w", l.p.lease.part, err)
		}
		l.taken = string(position)
		l.settled, l.saved, l.savedAt, l.loaded = l.taken, l.taken, time.Now(), true
	}
	if l.stream != nil {
		return nil
	}
	stream, err := l.p.r.cfg.Source.Open(l.p.lease.part, l.taken, l.p.stir)
	if err != nil {
		return err
	}
	l.stream, l.skip, l.partial = stream, max(l.skip, l.partial), 0
	l.stream.Settled(l.settled)
	return nil
}

// take takes a transaction, or a part of one, over into memory.
func (l *logReader) take(tx SourceTx) error {
	for _, from := range tx.Rows {
		if l.partial < l.skip {
			l.partial++
			continue
		}
		r, err := rowFrom(from)
		if err != nil {
			return err
		}
		l.partial++
		l.number++
		r.id = l.number
		l.rows = append(l.rows, logRow{row: r})
		l.bytes += r.msg.size()
	}
	if tx.Position == "" {
		return nil
	}
	l.taken, l.partial, l.skip = tx.Position, 0, 0
	if n := len(l.rows); n > 0 {
		l.rows[n-1].end = tx.Position // also when it wrote nothing here: then it ends behind that row
	} else {
		l.settled = tx.Position
	}
	return nil
}

// settle moves the checkpoint behind what is out of the way, buries what is poison
// and puts aside what has to wait, in one transaction that also verifies the epoch
// and renews the lease.
func (l *logReader) settle(ctx context.Context) error {
	p := l.p
	l.gone(p.pending.remove)
	for _, b := range p.pending.bury {
		if !b.aside {
			l.gone([]int64{b.id})
		}
	}
	l.shrink()
	if !p.pending.moves() && (l.settled == l.saved || !l.owed && l.idle()) {
		p.pending = settlement{}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	var until time.Time
	err := InTx(ctx, p.r.db, p.r.o.d.txOptions(), func(tx *sql.Tx) (err error) {
		if until, err = p.lease.renew(ctx, tx); err != nil {
			return err
		}
		if err := p.settleMoves(ctx, tx); err != nil {
			return err
		}
		if l.settled == l.saved {
			return nil
		}
		_, err = tx.ExecContext(ctx, p.r.o.d.source.save, p.lease.part, []byte(l.settled), p.lease.epoch)
		return err
	})
	if err != nil {
		return fmt.Errorf("outbox: save the checkpoint of partition %d: %w", p.lease.part, err)
	}
	p.lease.until = until
	p.settled()
	l.saved, l.savedAt, l.owed = l.settled, time.Now(), false
	if l.stream != nil {
		l.stream.Settled(l.saved)
	}
	return nil
}

// idle reports whether the checkpoint can wait: nothing of ours is behind it.
// Saving it writes to the log, which would move it again.
func (l *logReader) idle() bool { return time.Since(l.savedAt) < saveEvery }

// gone notes that rows are out of the way. What they owe is pending: the checkpoint
// moves behind them in the transaction that settles it.
func (l *logReader) gone(numbers []int64) {
	if len(l.rows) == 0 {
		return
	}
	first := l.rows[0].row.id // the numbers have no gaps
	for _, n := range numbers {
		if i := n - first; i >= 0 && i < int64(len(l.rows)) {
			l.rows[i].gone = true
		}
	}
}

// waiting is how many rows are in memory that are not out of the way.
func (l *logReader) waiting() (n int) {
	for i := range l.rows {
		if !l.rows[i].gone {
			n++
		}
	}
	return n
}

// shrink forgets the rows before the first that is not out of the way.
func (l *logReader) shrink() {
	n := 0
	for n < len(l.rows) && l.rows[n].gone {
		l.bytes -= l.rows[n].row.msg.size()
		if end := l.rows[n].end; end != "" {
			l.settled = end
		}
		l.rows[n] = logRow{} // what is behind it in memory stays for a while
		l.owed = true
		n++
	}
	l.rows = l.rows[n:]
}
