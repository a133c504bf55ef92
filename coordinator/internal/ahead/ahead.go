// Package ahead says which steps of a saga may be called before what they come
// after is stored as done.
//
// It is safe because of three things. The replies that are not stored yet are
// recorded where the effects are, so that whoever loads the saga after a crash is
// told the same again. Each stored state says whether calls may be ahead of it
// ([Leads]). And whoever loads a saga from such a state presumes that they were
// made ([Presumed]): if it turns back before it calls those steps itself, they are
// undone, as any step is whose outcome is not known.
package ahead

import (
	"slices"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// Max is how many steps in line may be called beyond what is stored. It bounds
// what a crash can cost a saga that then turns back: so many undos, in line, of
// steps that may never have been called.
const Max = 8

// never is the level of a step that is not called before what is before it is
// stored.
const never = Max + 1

// levels appends, for each step, how far ahead of the state it is: 0 when it was
// called, n when it can be called after n-1 others that were not. A pivot is
// never called ahead, for whether it was called decides which way a saga can go;
// neither is a retriable step as long as there is no pivot that is done, for it
// could not be undone.
func levels(d *saga.Definition, s saga.State, level []uint8) []uint8 {
	passed := false
	for i := range d.Steps {
		passed = passed || d.Steps[i].Kind == saga.Pivot && s.Steps[i].Phase == saga.Done
	}
	for i := range d.Steps {
		def, st, n := &d.Steps[i], &s.Steps[i], uint8(0)
		switch {
		case st.Attempt > 0:
		case def.Kind != saga.Compensatable && !passed:
			n = never
		default:
			for _, a := range def.After {
				n = max(n, level[a])
			}
			n = min(n+1, never)
		}
		level = append(level, n)
	}
	return level
}

// Leads reports whether calls may go out ahead of s once it is stored: while all
// goes well. A saga that has to try again may sleep, and then what was called of
// it is to be known exactly.
func Leads(d *saga.Definition, s saga.State) bool {
	if s.Phase != txn.Running {
		return false
	}
	for i := range s.Steps {
		if st := &s.Steps[i]; st.Phase == saga.Doing && st.Attempt > 1 {
			return false
		}
	}
	var few [32]uint8
	return slices.ContainsFunc(levels(d, s, few[:0]), func(n uint8) bool { return n > 0 && n < never })
}

// Early reports whether every step that s has called and base has not may be
// called while base, which leads, is what is stored.
func Early(d *saga.Definition, base, s saga.State) bool {
	var few [32]uint8
	for i, n := range levels(d, base, few[:0]) {
		if n == never && s.Steps[i].Attempt > base.Steps[i].Attempt {
			return false
		}
	}
	return true
}

// Presumed returns the steps that may have been called ahead of s while it was
// what is stored, for whoever loads it: s.Presume has them undone when the saga
// turns back.
func Presumed(d *saga.Definition, s saga.State) (steps []int) {
	var few [32]uint8
	for i, n := range levels(d, s, few[:0]) {
		if n > 0 && n < never && s.Steps[i].Phase == saga.Pending {
			steps = append(steps, i)
		}
	}
	return steps
}
