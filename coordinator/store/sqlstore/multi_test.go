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
			_, rows := m.fit(nil, m.chunk(len(c.sizes)-done), func(args []any, i int) []any {
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
