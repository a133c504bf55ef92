package saga

import "fmt"

// Presume returns s as it is to somebody who takes it over and cannot know
// whether the given steps were called: whoever had it before may have called
// them, on replies that were not stored. Those of them that s has not called are
// presumed to have been, until s calls them: an operator cannot skip them as never called, nor complete what they come after,
// for they may have been called with another reply; and when s turns back, they
// are undone. What such a step comes after must have been called, skipped or be
// presumed, too; else the error is ErrInvariant.
//
// What is presumed is not part of what Encode returns. Whoever stores s keeps
// [State.Presumed] beside it.
func (s State) Presume(d *Definition, steps []int) (State, error) {
	next := s.clone()
	for _, i := range steps {
		if i < 0 || i >= len(s.Steps) {
			return s, fmt.Errorf("%w: step %d is presumed to be called, but there are %d", ErrInvariant, i, len(s.Steps))
		}
		next.Steps[i].Presumed = next.Steps[i].Phase == Pending
	}
	if err := next.Check(d); err != nil {
		return s, err
	}
	return next, nil
}

// Presumed returns the steps that are presumed to have been called, in order.
func (s State) Presumed() (steps []int) {
	for i := range s.Steps {
		if s.Steps[i].Presumed {
			steps = append(steps, i)
		}
	}
	return steps
}

// presumedAfter returns the first step that comes after step i and is presumed
// to have been called, or -1.
func (s State) presumedAfter(d *Definition, i int) int {
	steps := s.Presumed()
	if len(steps) == 0 {
		return -1
	}
	before := d.ancestors(len(d.Steps))
	for _, j := range steps {
		if before[j].has(i) {
			return j
		}
	}
	return -1
}

// undoPresumed has a run that turns back owe the undo of what is presumed to
// have been called. What those steps come after is taken for done: it was, or
// they were not called. That holds even for a step that refused just now, for
// the call may have been delivered twice, and done the other time.
func (s *State) undoPresumed(d *Definition) {
	var before set
	for i := len(s.Steps) - 1; i >= 0; i-- {
		st := &s.Steps[i]
		undoable := d.Steps[i].Kind != Retriable
		called := st.Presumed && undoable
		switch {
		case called:
			st.Phase, st.Attempt = Done, 1
		case before.has(i) && undoable && (st.Phase == Doing || st.Phase == Refused):
			st.Phase = Done
		}
		st.Presumed = false
		if called || before.has(i) {
			for _, a := range d.Steps[i].After {
				before.add(a)
			}
		}
	}
}

// checkPresumed: only a run that goes forward presumes, of steps that it has not
// called, whose predecessors may have been done.
func (s State) checkPresumed(d *Definition, way way) error {
	for i := range s.Steps {
		if !s.Steps[i].Presumed {
			continue
		}
		if way != onward || s.Steps[i].Phase != Pending {
			return d.wrong(i, "%s in a saga that is %s, and presumed to be called", s.Steps[i].Phase, s.Phase)
		}
		for _, a := range d.Steps[i].After {
			if st := &s.Steps[a]; st.Attempt == 0 && !st.Presumed && st.Phase != Skipped {
				return d.wrong(i, "presumed to be called, but step %q before it was not", d.Steps[a].Name)
			}
		}
	}
	return nil
}

// refusesReply says why a reply cannot be made up for a step that is owed.
func (s State) refusesReply(d *Definition, i int) string {
	j := s.presumedAfter(d, i)
	if j < 0 {
		return ""
	}
	return fmt.Sprintf("step %q may have been called with its reply, which is not known yet: retry, skip or abort instead",
		d.Steps[j].Name)
}

// presumed is why a step that s has not called cannot be skipped.
const presumed = "it may have been called already, ahead of what was stored: " +
	"skip what it comes after, or this step once it is asked for"
