package saga_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/amends-dev/amends/saga"
)

// randomDefinition returns a valid one: kinds are drawn, then what breaks the
// pivot rules is made retriable.
func randomDefinition(rnd *rand.Rand) *saga.Definition {
	d := &saga.Definition{Name: "sim"}
	n := 1 + rnd.IntN(7)
	pivot := -1
	if rnd.IntN(2) == 0 {
		pivot = rnd.IntN(n)
	}
	linear := rnd.IntN(4) == 0
	for i := range n {
		st := saga.Step{Name: fmt.Sprintf("s%d", i), Action: fmt.Sprintf("svc%d.act", i%3), Payload: []byte{byte(i)}}
		for j := range i {
			if linear && j == i-1 || !linear && rnd.IntN(3) == 0 || i == pivot && rnd.IntN(3) > 0 {
				st.After = append(st.After, j)
			}
		}
		if rnd.IntN(3) == 0 {
			st.Retry.Attempts = 1 + rnd.IntN(3)
		}
		if rnd.IntN(6) == 0 {
			st.Kind = saga.Retriable
		}
		if i == pivot {
			st.Kind = saga.Pivot
		}
		d.Steps = append(d.Steps, st)
	}
	if pivot >= 0 {
		before := closure(d)
		for i := range d.Steps {
			if i != pivot && !before[pivot][i] {
				d.Steps[i].Kind = saga.Retriable
			}
		}
	}
	return d
}

// closure computes what the package's own ancestors does, in the plainest way.
func closure(d *saga.Definition) [][]bool {
	before := make([][]bool, len(d.Steps))
	for i := range before {
		before[i] = make([]bool, len(d.Steps))
		for _, a := range d.Steps[i].After {
			before[i][a] = true
			for j, is := range before[a] {
				before[i][j] = before[i][j] || is
			}
		}
	}
	return before
}
