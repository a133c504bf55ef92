package outbox

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"time"
)

// amount is a number of messages, and what they weigh in bytes.
type amount struct{ rows, bytes int64 }

func (a amount) plus(b amount) amount  { return amount{a.rows + b.rows, a.bytes + b.bytes} }
func (a amount) minus(b amount) amount { return amount{a.rows - b.rows, a.bytes - b.bytes} }

// level is how full the tables are.
type level struct {
	amount
	oldest time.Duration // age of the oldest row that is not aside
}

// gauge measures the tables of an outbox without reading them whole each time:
// it remembers what it found, in segments of ids, and reads again only where
// something may have come or gone. Only at the first time it reads everything. It
// may be too high, where rows were deleted from the middle, until their segment is
// read again, one at each measurement; it is too low by the rows alone that a
// transaction wrote which took longer than settleGrace to commit.
//
// A gauge is not changed by measuring: it answers another one.
type gauge struct {
	tables [allTheTables][]segment // the last one: of the rows aside
	turn   int
}

// segment is what was found at the ids from one above from up to to.
type segment struct {
	amount
	from, to int64
	born     time.Time
}

const (
	segmentRows  = 1024            // of a segment that is not the last one
	settleGrace  = 2 * time.Second // while a segment is younger it is read each time
	freshAtMost  = 16              // so many young segments are
	allTheTables = Partitions + 1
)

// tallySQL are the statements that count rows of a table, and weigh them unless
// they say otherwise.
type tallySQL struct {
	next, nextRows       string // (after id, limit): rows, bytes, highest id
	between, betweenRows string // (after id, up to id): rows, bytes
}

func newTallySQL(table string) tallySQL {
	const weight = "length(msg_id) + length(topic) + length(msg_key) + length(body) + length(headers) + length(idem_key)"
	next := func(weight string) string {
		return "SELECT count(*), COALESCE(sum(w), 0), COALESCE(max(id), 0) FROM (SELECT id, " + weight + " AS w FROM " + table +
			" WHERE id > ? ORDER BY id LIMIT ?) AS s"
	}
	between := func(weight string) string {
		return "SELECT count(*), COALESCE(sum(" + weight + "), 0) FROM " + table + " WHERE id > ? AND id <= ?"
	}
	return tallySQL{next: next(weight), nextRows: next("0"), between: between(weight), betweenRows: between("0")}
}

// newLevelsSQL asks each table, the last one for the rows aside, for its lowest
// and highest id, and for the age of its first row.
func newLevelsSQL(now string) string {
	var parts []string
	for p := range allTheTables {
		table, age := "amends_outbox_"+strconv.Itoa(p), now+" - created_at"
		if p == Partitions {
			table, age = "amends_outbox_aside", "0"
		}
		parts = append(parts, "SELECT "+strconv.Itoa(p)+", (SELECT id FROM "+table+" ORDER BY id LIMIT 1), (SELECT id FROM "+
			table+" ORDER BY id DESC LIMIT 1), (SELECT "+age+" FROM "+table+" ORDER BY id LIMIT 1)")
	}
	return strings.Join(parts, " UNION ALL ")
}

// idSpan are the lowest and the highest id of a table; none when high is 0.
type idSpan struct{ low, high int64 }

// measure answers the level, and the gauge to measure it with the next time. Up
// to half of most rows it is content with an upper bound, the distance of the
// ids, which costs nothing. Bytes are weighed only when weigh is set.
func (g gauge) measure(ctx context.Context, q querier, d *Dialect, most int64, weigh bool) (level, gauge, error) {
	var lv level
	var spans [allTheTables]idSpan
	err := eachRow(ctx, q, d.levels, nil, func(scan scanner) error {
		var table int
		var low, high, age sql.NullInt64
		if err := scan(&table, &low, &high, &age); err != nil || !high.Valid {
			return err
		}
		spans[table] = idSpan{low.Int64, high.Int64}
		lv.rows += high.Int64 - low.Int64 + 1
		lv.oldest = max(lv.oldest, time.Duration(age.Int64)*time.Microsecond)
		return nil
	})
	if err != nil || !weigh && (most < 0 || lv.rows <= most/2) {
		return lv, g, err
	}
	next := gauge{turn: g.turn + 1}
	lv.amount = amount{}
	for table, span := range spans {
		sqls := &d.aside.tally
		if table < Partitions {
			sqls = &d.part[table].tally
		}
		t := tally{ctx: ctx, q: q, sql: sqls, weigh: weigh, now: time.Now()}
		segs, err := t.measure(g.tables[table], span, g.turn)
		if err != nil {
			return lv, g, err
		}
		next.tables[table] = segs
		for i := range segs {
			lv.amount = lv.plus(segs[i].amount)
		}
	}
	return lv, next, nil
}

// tally measures one table.
type tally struct {
	ctx   context.Context
	q     querier
	sql   *tallySQL
	weigh bool
	now   time.Time
}

// measure answers the segments of a table: the old ones, of which those are read
// again that may have changed, and new ones behind them.
func (t *tally) measure(old []segment, span idSpan, turn int) ([]segment, error) {
	if span.high == 0 {
		return nil, nil
	}
	for len(old) > 0 && old[0].to < span.low {
		old = old[1:]
	}
	if n := len(old); n > 0 && old[n-1].rows < segmentRows {
		old = old[:n-1] // the last one grows
	}
	segs := make([]segment, 0, len(old)+1)
	for i, s := range old {
		young := i >= len(old)-freshAtMost && t.now.Sub(s.born) < settleGrace
		if i == 0 || young || i == turn%len(old) {
			if err := t.between(&s); err != nil {
				return nil, err
			}
		}
		segs = append(segs, s)
	}
	after := span.low - 1
	if n := len(segs); n > 0 {
		after = segs[n-1].to
	}
	for {
		s, err := t.next(after)
		if err != nil || s.rows == 0 {
			return segs, err
		}
		segs = append(segs, s)
		if s.rows < segmentRows {
			return segs, nil
		}
		after = s.to
	}
}

// between reads a segment again.
func (t *tally) between(s *segment) error {
	query := t.sql.betweenRows
	if t.weigh {
		query = t.sql.between
	}
	return t.q.QueryRowContext(t.ctx, query, s.from, s.to).Scan(&s.rows, &s.bytes)
}

// next reads the segment behind an id.
func (t *tally) next(after int64) (segment, error) {
	query := t.sql.nextRows
	if t.weigh {
		query = t.sql.next
	}
	s := segment{from: after, born: t.now}
	err := t.q.QueryRowContext(t.ctx, query, after, segmentRows).Scan(&s.rows, &s.bytes, &s.to)
	return s, err
}
