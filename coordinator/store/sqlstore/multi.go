package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// multi is a statement with a variable number of rows of parameters:
// head row, row … tail.
type multi struct {
	head, row, between, tail string

	vars     int // per row
	max      int // rows of one statement
	maxBytes int // of one statement, unless it has one row; 0: no bound
	counts   []int
	prepared map[int]*sql.Stmt
}

func newMulti(d *dialect, head, tail string, vars int) *multi {
	m := &multi{head: head, row: tuple(vars), between: ", ", tail: tail, vars: vars, maxBytes: d.maxBytes}
	return m.sized(d, d.maxVars/vars)
}

// sized bounds the rows of one statement.
func (m *multi) sized(d *dialect, rows int) *multi {
	m.max, m.prepared = rows, make(map[int]*sql.Stmt)
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
	return m.head + list(m.row, m.between, rows) + m.tail
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
		var rows int
		args, rows = m.fit(args[:0], m.chunk(n-done), func(args []any, i int) []any { return bind(args, done+i) })
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

// fit binds up to want rows, as many as a statement holds and at least one.
func (m *multi) fit(args []any, want int, bind func(args []any, i int) []any) (bound []any, rows int) {
	for bytes := len(m.head) + len(m.tail); rows < want; rows++ {
		before := len(args)
		args = bind(args, rows)
		if m.maxBytes == 0 {
			continue
		}
		bytes += len(m.row) + len(m.between) + textSize(args[before:])
		if bytes > m.maxBytes && rows > 0 {
			return args[:before], rows
		}
	}
	return args, rows
}

// textSize is how long values are at most when they are written into the text
// of a statement, where any byte may have to be escaped.
func textSize(args []any) int {
	size := 0
	for _, arg := range args {
		switch v := arg.(type) {
		case string:
			size += 2*len(v) + len(`''`)
		case []byte:
			size += 2*len(v) + len(`_binary''`)
		default:
			size += len(`-9223372036854775808`)
		}
	}
	return size
}

// tuple returns (?, ?, …) of n parameters.
func tuple(n int) string { return "(" + list("?", ", ", n) + ")" }

// list returns n times what.
func list(what, between string, n int) string {
	return strings.TrimSuffix(strings.Repeat(what+between, n), between)
}

// in returns a condition that column is one of n parameters.
func in(column string, n int) string {
	if n == 0 {
		return "1 = 0"
	}
	return fmt.Sprintf("%s IN %s", column, tuple(n))
}
