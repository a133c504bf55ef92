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
)

// settlement is what a batch owes to the table.
type settlement struct {
	remove []int64
	bury   []burial
}

// burial moves a row to the dead letters.
type burial struct {
	id       int64
	attempts int
	err      error
}

// settle deletes what was acknowledged and buries what is poison, in one
// transaction that also verifies the epoch and renews the lease. What it could
// not do stays pending, and comes before anything else is published: these rows
// are in the log, whoever owns the partition by then.
func (p *partition) settle(ctx context.Context) error {
	if len(p.pending.remove) == 0 && len(p.pending.bury) == 0 {
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
	p.r.count.dead.Add(uint64(len(p.pending.bury)))
	p.pending = settlement{}
	return nil
}

func (p *partition) settleIn(ctx context.Context, tx *sql.Tx) error {
	remove := slices.Clone(p.pending.remove)
	for _, b := range p.pending.bury {
		if _, err := tx.ExecContext(ctx, p.sql.bury, b.attempts, []byte(clip(b.err.Error(), maxError)), b.id); err != nil {
			return err
		}
		remove = append(remove, b.id)
	}
	for _, r := range runs(remove) {
		if _, err := tx.ExecContext(ctx, p.sql.remove, r.from, r.to); err != nil {
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
