package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

const (
	maxError      = 4 << 10 // bytes of an error that are kept with a dead letter
	settleTimeout = 15 * time.Second
	settleWithin  = 50 * time.Millisecond // what was published is deleted
)

// settlement is what a batch owes to the tables.
type settlement struct {
	remove []int64    // rows of the partition's table: published, or put aside
	bury   []burial   // whichever table they are in
	aside  []setAside // of the partition's table, where remove names them too
	done   []int64    // rows aside: published
	later  []later    // rows aside that failed
}

// moves reports whether anything is owed but the rows to remove.
func (s *settlement) moves() bool { return len(s.bury)+len(s.aside)+len(s.done)+len(s.later) > 0 }

// burial moves a row to the dead letters.
type burial struct {
	row
	attempts int
	err      error
}

// settle deletes what was acknowledged, buries what is poison and puts aside what
// has to wait, in one transaction that also verifies the epoch and renews the lease. What it could
// not do stays pending, and comes before anything else is published: these rows
// are in the log, whoever owns the partition by then.
func (p *partition) settle(ctx context.Context) error {
	if len(p.pending.remove) == 0 && !p.pending.moves() {
		return nil
	}
	// Also after ctx ended: otherwise the successor would publish them again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	var until time.Time
	err := InTx(ctx, p.r.db, p.r.o.d.txOptions(), func(tx *sql.Tx) (err error) {
		if until, err = p.lease.renew(ctx, tx); err != nil {
			return err
		}
		return p.settleIn(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("outbox: delete published rows: %w", err)
	}
	p.lease.until = until
	p.settled()
	return nil
}

// debt is a settlement that waits for more of its kind: while single messages come
// one after the other, a commit for each would hold up the next one.
type debt struct {
	until time.Time // zero: none
	pass  int       // of the window: another one would read again what is owed
}

// owe lets the settlement wait for a moment, and reports whether it may.
func (p *partition) owe() bool {
	if p.owed.until.IsZero() && len(p.pending.remove) > 0 {
		p.owed = debt{until: time.Now().Add(min(settleWithin, p.lease.length/8)), pass: p.w.pass}
	}
	return p.mayOwe()
}

func (p *partition) mayOwe() bool {
	return !p.owed.until.IsZero() && p.owed.pass == p.w.pass && len(p.pending.remove) < p.r.cfg.Batch &&
		!p.pending.moves() && time.Now().Before(p.owed.until)
}

// settleDue settles, unless that may wait.
func (p *partition) settleDue(ctx context.Context) error {
	if p.mayOwe() {
		return nil
	}
	return p.settle(ctx)
}

// settled takes note of a settlement that was committed.
func (p *partition) settled() {
	p.r.count.dead.Add(uint64(len(p.pending.bury)))
	if n := len(p.pending.aside); n > 0 {
		p.r.count.aside.Add(uint64(n))
		if p.futile < 2 {
			p.asideAt = time.Time{}
		}
	}
	p.pending, p.owed = settlement{}, debt{}
}

func (p *partition) settleIn(ctx context.Context, tx *sql.Tx) error {
	remove := slices.Clone(p.pending.remove)
	for _, b := range p.pending.bury {
		if !b.aside {
			remove = append(remove, b.id)
		}
	}
	if err := p.settleMoves(ctx, tx); err != nil {
		return err
	}
	return removeRuns(ctx, tx, p.sql.remove, remove)
}

// settleMoves does what is owed to other tables than the partition's.
func (p *partition) settleMoves(ctx context.Context, tx *sql.Tx) error {
	if len(p.pending.aside) > 0 {
		p.aside = true // also when this is committed and the answer gets lost
	}
	if err := p.dropTaken(ctx, tx); err != nil {
		return err
	}
	done := slices.Clone(p.pending.done)
	for _, b := range p.pending.bury {
		args := append(append([]any{p.lease.part}, b.values()...), b.attempts, []byte(clip(b.err.Error(), maxError)))
		if _, err := tx.ExecContext(ctx, p.r.o.d.dead.add, args...); err != nil {
			return err
		}
		if b.aside {
			done = append(done, b.id)
		}
	}
	if err := p.moveAside(ctx, tx); err != nil {
		return err
	}
	return removeRuns(ctx, tx, p.r.o.d.aside.remove, done)
}

// dropTaken forgets what is owed to rows that an operator has taken away, and
// locks the others. A row that a source was faster with than its transaction is
// waited for.
func (p *partition) dropTaken(ctx context.Context, tx *sql.Tx) error {
	s := &p.pending
	var ids, aside []int64
	for i := range s.aside {
		ids = append(ids, s.aside[i].id)
	}
	for i := range s.later {
		aside = append(aside, s.later[i].id)
	}
	for i := range s.bury {
		if s.bury[i].aside {
			aside = append(aside, s.bury[i].id)
		} else {
			ids = append(ids, s.bury[i].id)
		}
	}
	there, err := p.lockRows(ctx, tx, ids)
	if err != nil {
		return err
	}
	rows, err := lockAside(ctx, tx, p.r.o.d, aside)
	if err != nil {
		return err
	}
	thereAside := map[int64]bool{}
	for _, r := range rows {
		thereAside[r.id] = true
	}
	s.aside = slices.DeleteFunc(s.aside, func(a setAside) bool { return !there(a.id) })
	s.later = slices.DeleteFunc(s.later, func(l later) bool { return !thereAside[l.id] })
	s.bury = slices.DeleteFunc(s.bury, func(b burial) bool { return b.aside && !thereAside[b.id] || !b.aside && !there(b.id) })
	return nil
}

// lockRows locks rows of the partition's table, and answers which are there. Rows
// of a log are nowhere else.
func (p *partition) lockRows(ctx context.Context, tx *sql.Tx, ids []int64) (there func(id int64) bool, err error) {
	if p.log != nil {
		return func(int64) bool { return true }, nil
	}
	found := map[int64]bool{}
	err = inChunks(ids, func(chunk []int64) error {
		query := withIn(p.r.o.d.operate.part[p.lease.part].lock, len(chunk))
		return eachRow(ctx, tx, query, idArgs(chunk), func(scan scanner) error {
			var id int64
			var msgID []byte
			err := scan(&id, &msgID)
			found[id] = true
			return err
		})
	})
	return func(id int64) bool { return found[id] }, err
}

func removeRuns(ctx context.Context, tx *sql.Tx, query string, ids []int64) error {
	for _, r := range runs(ids) {
		if _, err := tx.ExecContext(ctx, query, r.from, r.to); err != nil {
			return err
		}
	}
	return nil
}

// idRange is a range of ids, both ends included.
type idRange struct{ from, to int64 }

// runs groups ids into ranges without a gap: a range delete may only cover ids
// that were all read, since in a gap a row can appear at any time.
func runs(ids []int64) []idRange {
	slices.Sort(ids)
	var out []idRange
	for _, id := range ids {
		if n := len(out); n > 0 && id <= out[n-1].to+1 {
			out[n-1].to = id
			continue
		}
		out = append(out, idRange{id, id})
	}
	return out
}

// clip cuts a text to limit bytes and shows that it did.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	tail := fmt.Sprintf("… (%d bytes in all)", len(s))
	return s[:limit-len(tail)] + tail
}
