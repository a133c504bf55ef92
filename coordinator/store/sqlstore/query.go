package sqlstore

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"

	"github.com/amends-dev/amends/coordinator/store"
)

const (
	listTransactions = `SELECT ` + listColumns + ` FROM `
	countByState     = `SELECT t.state, COUNT(*) FROM `
	groupByState     = ` GROUP BY t.state`
	both             = ` UNION ALL `

	fromTransactions = `amends_transactions t WHERE `
	fromLabels       = `amends_labels l JOIN amends_transactions t ON t.gid = l.gid WHERE l.name = ? AND l.value = ? AND `
	hasLabel         = `EXISTS (SELECT 1 FROM amends_labels x
 WHERE x.name = ? AND x.value = ? AND x.created_at = t.created_at AND x.gid = t.gid)`

	orderByCreation = ` ORDER BY t.created_at DESC, t.gid LIMIT ?`
	orderByLabel    = ` ORDER BY l.created_at DESC, l.gid LIMIT ?`
)

// conditions are joined by AND.
type conditions struct {
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
	query, args := listQuery(q, after, limit)
	return s.records(ctx, "list", false, query, args)
}

func listQuery(q store.Query, after *store.Cursor, limit int) (string, []any) {
	var c conditions
	from, order, table := fromTransactions, orderByCreation, `t`
	labels := slices.Sorted(maps.Keys(q.Labels))
	if len(labels) > 0 { // the index of the first leads, in the order of the list
		from, order, table = fromLabels, orderByLabel, `l`
		c.args = append(c.args, labels[0], q.Labels[labels[0]])
		labels = labels[1:]
	}
	if q.Unfinished {
		c.add(`t.finished_at IS NULL`)
	}
	c.created(table, q, after)
	c.matching(q, labels)
	return listTransactions + from + c.String() + order, append(c.args, max(limit, 0))
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, q store.Query) (map[uint8]int64, error) {
	counts := make(map[uint8]int64)
	err := s.read(ctx, "count", func(db *sql.DB) error {
		query, args := countQuery(q)
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

// countQuery counts in two halves, each with an index of its own: the live one
// is short, that of the finished ones holds the state.
func countQuery(q store.Query) (string, []any) {
	query, args := countHalf(q, `t.finished_at IS NULL`)
	if q.Unfinished {
		return query, args
	}
	rest, more := countHalf(q, `t.finished_at IS NOT NULL`)
	return query + both + rest, append(args, more...)
}

func countHalf(q store.Query, half string) (string, []any) {
	var c conditions
	from, table := fromTransactions, `t`
	labels := slices.Sorted(maps.Keys(q.Labels))
	if len(labels) > 0 {
		from, table = fromLabels, `l`
		c.args = append(c.args, labels[0], q.Labels[labels[0]])
		labels = labels[1:]
	}
	c.add(half)
	c.created(table, q, nil)
	c.matching(q, labels)
	return countByState + from + c.String() + groupByState, c.args
}

// created bounds the time of creation in the table whose index leads.
func (c *conditions) created(table string, q store.Query, after *store.Cursor) {
	if !q.CreatedFrom.IsZero() {
		c.add(table+`.created_at >= ?`, q.CreatedFrom.UnixMicro())
	}
	if !q.CreatedUntil.IsZero() {
		c.add(table+`.created_at < ?`, q.CreatedUntil.UnixMicro())
	}
	if after != nil {
		// The first bound is implied by the second, and lets the index begin there.
		at := after.CreatedAt.UnixMicro()
		c.add(table+`.created_at <= ?`, at)
		c.add(`(`+table+`.created_at < ? OR `+table+`.gid > ?)`, at, after.GID)
	}
}

// matching adds what no index serves, and the labels that do not lead.
func (c *conditions) matching(q store.Query, labels []string) {
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
		c.add(hasLabel, name, q.Labels[name])
	}
}
