package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// maxFilling is how many bytes of rows are sent twice at most.
const maxFilling = 64 << 10

// multi is a statement with a variable number of rows of parameters:
// head row, row … tail. To send a row twice must be the same as to send it once.
type multi struct {
	head, row, between, tail string

	vars     int // per row
	max      int // rows of one statement
	maxBytes int // of one statement, unless it has one row; 0: no bound
	fillUp   bool
	counts   []int
	prepared map[int]*sql.Stmt
}

func newMulti(d *dialect, head, tail string, vars int) *multi {
	m := &multi{head: head, row: tuple(vars), between: ", ", tail: tail, vars: vars, maxBytes: d.maxBytes, fillUp: d.fillUp}
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

// chunk returns the size of the next statement for n rows. It may be larger
// than n by a third.
func (m *multi) chunk(n int) int {
	for _, count := range m.counts {
		if count <= n || m.fillUp && 3*count <= 4*n {
			return count
		}
	}
	return min(n, m.max)
}

// exec runs the statement over n rows; bind appends the values of row i.
func (m *multi) exec(ctx context.Context, tx *sql.Tx, n int, bind func(args []any, i int) []any) error {
	args := make([]any, 0, m.vars*m.chunk(n))
	for done := 0; done < n; {
		size := m.chunk(n - done)
		var rows int
		args, rows = m.fit(args[:0], min(size, n-done), func(args []any, i int) []any { return bind(args, done+i) })
		args = m.fill(args, rows, size)
		size = len(args) / m.vars
		var err error
		// A value that is too long for MySQL spoils a prepared statement for
		// all that come after it.
		large := m.maxBytes > 0 && rows == 1 && textSize(args[:m.vars]) > m.maxBytes
		if stmt := m.prepared[size]; stmt != nil && !large {
			_, err = tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
		} else {
			_, err = tx.ExecContext(ctx, m.text(size), args...)
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

// fill repeats the last row until there are size of them, if they are nearly
// that many and it is not long.
func (m *multi) fill(args []any, rows, size int) []any {
	last := args[len(args)-m.vars:]
	if 4*rows < 3*size || textSize(last)*(size-rows) > maxFilling {
		return args
	}
	for range size - rows {
		args = append(args, last...)
	}
	return args
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
