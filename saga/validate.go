package saga

import (
	"errors"
	"fmt"

	"github.com/amends-dev/amends/saga/txn"
)

// ErrInvalidDefinition is what every error of Validate, Build and
// DecodeDefinition about the content of a definition wraps.
var ErrInvalidDefinition = errors.New("saga: invalid definition")

// Validate reports every mistake in d, joined, each naming the step and the
// field and how to mend it. The error wraps ErrInvalidDefinition.
func (d *Definition) Validate() error {
	return d.invalid(d.mistakes())
}

func (d *Definition) invalid(mistakes []error) error {
	if len(mistakes) == 0 {
		return nil
	}
	return fmt.Errorf("%w %q: %w", ErrInvalidDefinition, d.Name, errors.Join(mistakes...))
}

func (d *Definition) mistakes() []error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(txn.CheckName("name", d.Name))
	if d.Timeout < 0 {
		add(fmt.Errorf("timeout is %v, want 0 (none) or more", d.Timeout))
	}
	switch n := len(d.Steps); {
	case n == 0:
		add(errors.New("steps is empty: a saga needs at least one step"))
	case n > MaxSteps:
		add(fmt.Errorf("steps has %d entries, at most %d are allowed: split the saga", n, MaxSteps))
		return errs
	}
	first := make(map[string]int, len(d.Steps))
	for i := range d.Steps {
		name := d.Steps[i].Name
		if j, taken := first[name]; taken {
			add(d.wrong(i, "name is taken by step %d: give each step a name of its own", j))
		} else {
			first[name] = i
		}
		errs = append(errs, d.stepMistakes(i)...)
	}
	return append(errs, d.pivotMistakes()...)
}

func (d *Definition) stepMistakes(i int) []error {
	var errs []error
	st := &d.Steps[i]
	if err := txn.CheckName("name", st.Name); err != nil {
		errs = append(errs, d.wrong(i, "%w", err))
	}
	if err := txn.CheckAction("action", st.Action); err != nil {
		errs = append(errs, d.wrong(i, "%w", err))
	}
	if !st.Kind.Valid() {
		errs = append(errs, d.wrong(i, "kind is %d, want %s, %s or %s", uint8(st.Kind), Compensatable, Pivot, Retriable))
	}
	if err := st.Retry.Validate(); err != nil {
		errs = append(errs, d.wrong(i, "%w", err))
	}
	seen := make(map[int]bool, len(st.After))
	for k, a := range st.After {
		switch {
		case a == i:
			errs = append(errs, d.wrong(i, "after[%d] is the step itself: a cycle cannot be honoured", k))
		case a < 0 || a > i:
			errs = append(errs, d.wrong(i, "after[%d] is %d, want the index of an earlier step (below %d): "+
				"pointing forward makes a cycle, which cannot be honoured", k, a, i))
		case seen[a]:
			errs = append(errs, d.wrong(i, "after[%d] repeats step %q: name it once", k, d.Steps[a].Name))
		}
		seen[a] = true
	}
	return errs
}

// pivotMistakes reports what keeps the pivot from being a point of no return:
// every step that can be undone must be done before it.
func (d *Definition) pivotMistakes() []error {
	p := d.pivot()
	if p < 0 {
		return nil
	}
	var errs []error
	before := d.ancestors(len(d.Steps))
	for i := range d.Steps {
		switch {
		case d.Steps[i].Kind == Pivot && i != p:
			errs = append(errs, d.wrong(i, "kind is pivot, but step %q is the pivot already: at most one is allowed",
				d.Steps[p].Name))
		case d.Steps[i].Kind != Compensatable || before[p].has(i):
		case before[i].has(p):
			errs = append(errs, d.wrong(i, "kind is compensatable, but it comes after the pivot %q, "+
				"which is never turned back: make it retriable", d.Steps[p].Name))
		default:
			errs = append(errs, d.wrong(i, "kind is compensatable, but the pivot %q does not come after it: "+
				"let the pivot come after it, or make it retriable", d.Steps[p].Name))
		}
	}
	return errs
}

// retriableMistakes reports the steps that cannot be undone and may run while
// the saga can still turn back. Validate lets them be: runs of such definitions
// are stored.
func (d *Definition) retriableMistakes() []error {
	if len(d.Steps) > MaxSteps {
		return nil
	}
	var errs []error
	p, before := d.pivot(), d.ancestors(len(d.Steps))
	for i := range d.Steps {
		if d.Steps[i].Kind == Retriable && (p < 0 || !before[i].has(p)) {
			errs = append(errs, d.wrong(i, "kind is retriable, but it does not come after a pivot: what it did would stand "+
				"if the saga turned back; make the last step that may refuse the pivot and let this one come after it, "+
				"or make this one compensatable"))
		}
	}
	return errs
}

func (d *Definition) wrong(i int, format string, args ...any) error {
	return fmt.Errorf("step %d %q: "+format, append([]any{i, d.Steps[i].Name}, args...)...)
}

// set is a set of step indices.
type set [MaxSteps / 64]uint64

func (s *set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
func (s *set) hasAll(indices []int) bool {
	for _, i := range indices {
		if !s.has(i) {
			return false
		}
	}
	return true
}
func (s *set) union(t *set) {
	for w := range s {
		s[w] |= t[w]
	}
}

// ancestors returns, for each of the first n steps, the steps that it comes
// after, transitively. It costs a few machine words per dependency, so it is
// computed when needed rather than kept. Indices that don't point backwards
// are left out: Validate reports them.
func (d *Definition) ancestors(n int) []set {
	sets := make([]set, n)
	for i := range sets {
		for _, a := range d.Steps[i].After {
			if a >= 0 && a < i {
				sets[i].union(&sets[a])
				sets[i].add(a)
			}
		}
	}
	return sets
}
