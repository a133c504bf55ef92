package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	listTransactions = `SELECT ` + listColumns + ` FROM `
	countByState     = `SELECT t.state, COUNT(*) FROM `
	groupByState     = ` GROUP BY t.state`
	both             = ` UNION ALL `

	fromTransactions = `amends_transactions t%s WHERE `
	fromLabels       = `amends_labels l %s amends_transactions t ON t.gid = l.gid WHERE l.name = ? AND l.value = ? AND `
	// Not EXISTS, of which MySQL makes a join that it may begin with: then all
	// that has the label is read and sorted. This finds one row or none.
	hasLabel = `(SELECT 1 FROM amends_labels x
 WHERE x.name = ? AND x.value = ? AND x.%[1]s = t.%[1]s AND x.gid = t.gid) = 1`
	newestFirst = ` ORDER BY %[1]s.%[2]s %[3]s, %[1]s.gid LIMIT ?`
	oldestFirst = ` ORDER BY %[1]s.%[2]s %[3]s, %[1]s.gid DESC LIMIT ?`
)

// conditions are joined by AND.
type conditions struct {
	d    *dialect
	text []string
	args []any
}

func (c *conditions) add(text string, args ...any) {
	c.text = append(c.text, text)
	c.args = append(c.args, args...)
}

// String returns the conditions as text to put behind WHERE or AND.
func (c *conditions) String() string {
	if len(c.text) == 0 {
		return "1 = 1"
	}
	return strings.Join(c.text, " AND ")
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, q store.Query, after *store.Cursor, limit int) ([]store.Record, error) {
	query, args := s.d.listQuery(q, after, limit)
	return s.records(ctx, "list", false, query, args)
}

func (d *dialect) listQuery(q store.Query, after *store.Cursor, limit int) (string, []any) {
	c := conditions{d: d}
	from, table, labels := c.from(q, leading(q))
	if q.OldestFirst {
		after = nil
	}
	c.created(table, q, after)
	c.matching(q, labels)
	return listTransactions + from + c.String() + d.order(table, q.OldestFirst), append(c.args, max(limit, 0))
}

// order is that of a list. The column newest grows with the time of creation,
// or falls where it is negated.
func (d *dialect) order(table string, oldest bool) string {
	falling, rising := d.directions()
	if oldest {
		return fmt.Sprintf(oldestFirst, table, d.newest, rising)
	}
	return fmt.Sprintf(newestFirst, table, d.newest, falling)
}

// directions are how an index is read so that the time of creation falls, or
// rises.
func (d *dialect) directions() (falling, rising string) {
	if d.negated {
		return `ASC`, `DESC`
	}
	return `DESC`, `ASC`
}

// leading returns the index that meets the fewest transactions that a query
// does not ask for. All of them are in the order of a list, and for each that
// is partial, matching says what is in it.
func leading(q store.Query) string {
	switch {
	case q.WaitsFor != "":
		return waitsForIndex
	case q.Stalled != nil && *q.Stalled:
		return stalledIndex
	case len(q.Labels) > 0:
		return labelsIndex
	case q.Unfinished:
		return liveIndex
	case q.Namespace != nil:
		return namespaceIndex
	}
	return createdIndex
}

// from returns the tables of a query, the name of the one whose index leads,
// and the labels that are yet to be compared.
func (c *conditions) from(q store.Query, index string) (from, table string, labels []string) {
	labels = slices.Sorted(maps.Keys(q.Labels))
	if index != labelsIndex {
		return fmt.Sprintf(fromTransactions, c.d.use(index)), `t`, labels
	}
	c.args = append(c.args, labels[0], q.Labels[labels[0]])
	return fmt.Sprintf(fromLabels, c.d.join), `l`, labels[1:]
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, q store.Query) (map[uint8]int64, error) {
	query, args := s.d.countQuery(q)
	var counts map[uint8]int64
	err := s.read(ctx, "count", func(db *sql.DB) error {
		counts = make(map[uint8]int64)
		rows, err := db.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var state uint8
			var n int64
			if err := rows.Scan(&state, &n); err != nil {
				return err
			}
			counts[state] += n
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return counts, nil
}

// countQuery counts what the leading index meets. One that would meet all of
// history gives way to two halves: the live one is short, and the index of the
// finished ones holds what most counts need.
func (d *dialect) countQuery(q store.Query) (string, []any) {
	index := leading(q)
	if index != createdIndex && index != namespaceIndex || !q.CreatedFrom.IsZero() {
		return d.countPart(q, index, ``)
	}
	live := q
	live.Unfinished = true
	query, args := d.countPart(live, liveIndex, ``)
	rest, more := d.countPart(q, d.ended, `t.finished_at IS NOT NULL`)
	return query + both + rest, append(args, more...)
}

func (d *dialect) countPart(q store.Query, index, part string) (string, []any) {
	c := conditions{d: d}
	from, table, labels := c.from(q, index)
	if part != `` {
		c.add(part)
	}
	c.created(table, q, nil)
	c.matching(q, labels)
	return countByState + from + c.String() + groupByState, c.args
}

// created bounds the time of creation in the table whose index leads.
func (c *conditions) created(table string, q store.Query, after *store.Cursor) {
	if !q.CreatedFrom.IsZero() {
		c.add(c.d.createdAt(table, `>=`), c.d.bindCreated(q.CreatedFrom))
	}
	if !q.CreatedUntil.IsZero() {
		c.add(c.d.createdAt(table, `<`), c.d.bindCreated(q.CreatedUntil))
	}
	if after != nil {
		// The first bound is implied by the second, and lets the index begin there.
		at := c.d.bindCreated(after.CreatedAt)
		c.add(c.d.createdAt(table, `<=`), at)
		c.add(`(`+c.d.createdAt(table, `<`)+` OR `+table+`.gid > ?)`, at, after.GID)
	}
}

// createdAt compares the time of creation in a table with bindCreated's value.
func (d *dialect) createdAt(table, operator string) string {
	if d.negated {
		operator = map[string]string{`<`: `>`, `<=`: `>=`, `>=`: `<=`}[operator]
	}
	return table + `.` + d.newest + ` ` + operator + ` ?`
}

// bindCreated is a time of creation as the column newest keeps it.
func (d *dialect) bindCreated(t time.Time) int64 {
	if d.negated {
		return -t.UnixMicro()
	}
	return t.UnixMicro()
}

// matching adds all but the time of creation and the labels that lead.
func (c *conditions) matching(q store.Query, labels []string) {
	if q.WaitsFor != "" {
		c.add(`t.waits_for = ? AND t.waits_for <> ''`, q.WaitsFor) // the second is what a partial index asks for
	}
	if q.Stalled != nil && *q.Stalled {
		c.add(`t.stalled = 1`)
	} else if q.Stalled != nil {
		c.add(`t.stalled = 0`)
	}
	if q.Unfinished {
		c.add(`t.finished_at IS NULL`)
	}
	if q.Namespace != nil {
		c.add(`t.namespace = ?`, *q.Namespace)
	}
	if len(q.States) > 0 {
		states := make([]any, len(q.States))
		for i, state := range q.States {
			states[i] = state
		}
		c.add(in(`t.state`, len(states)), states...)
	}
	if q.Kind != "" {
		c.add(`t.kind = ?`, q.Kind)
	}
	if q.Name != "" {
		c.add(`t.name = ?`, q.Name)
	}
	if q.Paused != nil {
		c.add(`t.paused = ?`, *q.Paused)
	}
	if !q.UpdatedUntil.IsZero() {
		c.add(`t.updated_at < ?`, q.UpdatedUntil.UnixMicro())
	}
	for _, name := range labels {
		c.add(fmt.Sprintf(hasLabel, c.d.newest), name, q.Labels[name])
	}
}
