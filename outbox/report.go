package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	reportEvery = time.Second
	maxNotes    = 100 // keys of one partition that are noted
	noteAfter   = 3   // attempts, of messages that may still get through
)

// report writes down for Operator which keys do not get through, and takes
// notice when somebody has deleted such a note: then the message was taken away.
// It looks once a second, and touches the table only when there is or was
// something to say.
func (p *partition) report(ctx context.Context) error {
	first := p.noted == nil
	if !first && (!p.w.changed && len(p.noted) == 0 || time.Since(p.notedAt) < reportEvery) {
		return nil
	}
	var err error
	if first || p.w.changed {
		err = p.renote(ctx)
	} else {
		err = p.look(ctx, p.r.db, "")
	}
	switch {
	case errors.Is(err, errLost):
		return err
	case err != nil:
		return fmt.Errorf("outbox: note blocked keys (was outbox.Migrate run?): %w", err)
	}
	p.notedAt = time.Now()
	return nil
}

// renote replaces the partition's notes. That verifies the epoch, as settle does.
func (p *partition) renote(ctx context.Context) error {
	var until time.Time
	var noted map[int64]string
	p.w.changed = false
	err := InTx(ctx, p.r.db, p.r.o.d.txOptions(), func(tx *sql.Tx) (err error) {
		if until, err = p.lease.renew(ctx, tx); err != nil {
			return err
		}
		if err := p.look(ctx, tx, p.r.o.d.operate.lock); err != nil {
			return err
		}
		noted, err = p.writeNotes(ctx, tx)
		return err
	})
	if err != nil {
		p.w.changed = true
		return err
	}
	p.lease.until, p.noted = until, noted
	return nil
}

// look ends the holds of keys whose notes were deleted.
func (p *partition) look(ctx context.Context, q querier, lock string) error {
	there := map[int64]bool{}
	err := eachRow(ctx, q, p.r.o.d.operate.noted+lock, []any{p.lease.part}, func(scan scanner) error {
		var row int64
		err := scan(&row)
		there[row] = true
		return err
	})
	if err != nil {
		return err
	}
	for row, key := range p.noted {
		if h := p.w.keys[key]; !there[row] && h != nil && h.cause.row == row {
			p.w.lift(key)
		}
		if !there[row] {
			delete(p.noted, row)
		}
	}
	return nil
}

func (p *partition) writeNotes(ctx context.Context, tx *sql.Tx) (map[int64]string, error) {
	sqls := &p.r.o.d.operate
	if _, err := tx.ExecContext(ctx, sqls.noteClear, p.lease.part); err != nil {
		return nil, err
	}
	noted := map[int64]string{}
	keys := p.w.stuck()
	if len(keys) == 0 {
		return noted, nil
	}
	now := time.Now()
	var args []any
	for _, key := range keys {
		h := p.w.keys[key]
		c := &h.cause
		args = append(args, p.lease.part, c.row, []byte(c.id), c.topic, []byte(c.key), h.attempts, 0, []byte(c.err),
			micros(now.Sub(c.since)), micros(max(0, h.until.Sub(now))))
		noted[c.row] = key
	}
	_, err := tx.ExecContext(ctx, sqls.noteAdd+sqls.noteRow+strings.Repeat(", "+sqls.noteRow, len(keys)-1), args...)
	return noted, err
}

// stuck are the keys that are worth noting, the longest first. Poison is not among
// them: it is a dead letter, or aside.
func (w *window) stuck() []string {
	var keys []string
	for key, h := range w.keys {
		if h.cause.row != 0 && h.attempts >= noteAfter {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int {
		x, y := &w.keys[a].cause, &w.keys[b].cause
		return cmp.Or(x.since.Compare(y.since), cmp.Compare(x.row, y.row))
	})
	return keys[:min(len(keys), maxNotes)]
}
