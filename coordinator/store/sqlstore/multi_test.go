package sqlstore

import (
	"slices"
	"strings"
	"testing"
)

// TestStatementsAreBounded: a statement takes as many rows as its text may
// hold with every byte escaped, and one that is larger by itself.
func TestStatementsAreBounded(t *testing.T) {
	m := newMulti(&dialect{maxVars: 50, maxBytes: 1000}, "INSERT ", "", 2)
	for name, c := range map[string]struct {
		sizes []int
		want  []int // rows of each statement
	}{
		"small":       {[]int{1, 2, 3, 4, 5}, []int{5}},
		"full":        {[]int{200, 200, 200, 200}, []int{2, 2}},
		"too large":   {[]int{5000, 1, 5000}, []int{1, 1, 1}},
		"large last":  {[]int{1, 1, 600}, []int{2, 1}},
		"nothing":     {nil, nil},
		"many values": {make([]int, 60), []int{25, 25, 10}},
	} {
		var got []int
		for done := 0; done < len(c.sizes); {
			left := len(c.sizes) - done
			_, rows := m.fit(nil, min(m.chunk(left), left), func(args []any, i int) []any {
				return append(args, i, strings.Repeat("x", c.sizes[done+i]))
			})
			got = append(got, rows)
			done += rows
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: statements of %v rows, want %v", name, got, c.want)
		}
	}
}

// TestStatementsAreFilledUp: batches take few statements, and few rows twice.
func TestStatementsAreFilledUp(t *testing.T) {
	m := newMulti(&dialect{maxVars: 1000, rowCounts: []int{64, 32, 16, 8, 4, 2, 1}, fillUp: true}, "INSERT ", "", 1)
	for n := 1; n < 300; n++ {
		statements, sent := 0, 0
		for done := 0; done < n; statements++ {
			size := m.chunk(n - done)
			args, rows := m.fit(nil, min(size, n-done), func(args []any, i int) []any { return append(args, done+i) })
			args = m.fill(args, rows, size)
			if len(args) != size || args[len(args)-1] != done+rows-1 {
				t.Fatalf("%d rows: a statement of %d ends in row %v", n, size, args[len(args)-1])
			}
			done, sent = done+rows, sent+size
		}
		if statements > n/64+3 || 3*sent > 4*n {
			t.Errorf("%d rows in %d statements, %d sent", n, statements, sent)
		}
	}
	long := []any{strings.Repeat("x", maxFilling)}
	if args := m.fill(append(make([]any, 6), long...), 7, 8); len(args) != 7 {
		t.Errorf("a long row is sent %d times", len(args)-6)
	}
}
