package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// multi is a statement with a variable number of rows of parameters:
// head (?, ?), (?, ?) … tail.
type multi struct {
	head, tail string
	vars       int // per row
	max        int // rows of one statement
	counts     []int
	prepared   map[int]*sql.Stmt
}

func newMulti(d *dialect, head, tail string, vars int) *multi {
	m := &multi{head: head, tail: tail, vars: vars, max: d.maxVars / vars, prepared: make(map[int]*sql.Stmt)}
	for _, n := range d.rowCounts {
		if n <= m.max {
			m.counts = append(m.counts, n)
		}
	}
	return m
}

func (m *multi) prepare(ctx context.Context, db *sql.DB) error {
	for _, n := range m.counts {
		stmt, err := db.PrepareContext(ctx, m.text(n))
		if err != nil {
			return err
		}
		m.prepared[n] = stmt
	}
	return nil
}

func (m *multi) text(rows int) string {
	return m.head + list(tuple(m.vars), rows) + m.tail
}

// chunk returns how many of n rows the next statement takes.
func (m *multi) chunk(n int) int {
	for _, count := range m.counts {
		if count <= n {
			return count
		}
	}
	return min(n, m.max)
}

// exec runs the statement over n rows; bind appends the values of row i.
func (m *multi) exec(ctx context.Context, tx *sql.Tx, n int, bind func(args []any, i int) []any) error {
	args := make([]any, 0, m.vars*m.chunk(n))
	for done := 0; done < n; {
		rows := m.chunk(n - done)
		args = args[:0]
		for i := range rows {
			args = bind(args, done+i)
		}
		var err error
		if stmt := m.prepared[rows]; stmt != nil {
			_, err = tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
		} else {
			_, err = tx.ExecContext(ctx, m.text(rows), args...)
		}
		if err != nil {
			return err
		}
		done += rows
	}
	return nil
}

// tuple returns (?, ?, …) of n parameters.
func tuple(n int) string { return "(" + list("?", n) + ")" }

// list returns n times what, with commas between.
func list(what string, n int) string {
	return strings.TrimSuffix(strings.Repeat(what+", ", n), ", ")
}

// in returns a condition that column is one of n parameters.
func in(column string, n int) string {
	if n == 0 {
		return "1 = 0"
	}
	return fmt.Sprintf("%s IN %s", column, tuple(n))
}
