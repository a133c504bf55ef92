package saga

import (
	"errors"
	"fmt"
	"math"

	"github.com/amends-dev/amends/saga/txn"
)

// ErrInvariant is what every error of Check wraps.
var ErrInvariant = errors.New("saga: invariant does not hold")

// Check reports the first rule of the machine that s breaks. A state that
// Advance returned breaks none; one from elsewhere may. d must be valid.
func (s State) Check(d *Definition) error {
	if err := s.check(d); err != nil {
		return fmt.Errorf("%w: %w", ErrInvariant, err)
	}
	return nil
}

func (s State) check(d *Definition) error {
	if len(s.Steps) != len(d.Steps) {
		return fmt.Errorf("the state has %d steps, the definition %d", len(s.Steps), len(d.Steps))
	}
	for i := range s.Steps {
		if err := s.Steps[i].check(); err != nil {
			return d.wrong(i, "%w", err)
		}
	}
	if err := s.checkPhase(d); err != nil {
		return err
	}
	if s.Phase == txn.Abandoned {
		return nil
	}
	way := s.way(d)
	for i := range s.Steps {
		if p := s.Steps[i].Phase; !legalPhase(s.Phase, way, d.Steps[i].Kind, p) {
			return d.wrong(i, "%s (%s) is illegal in a saga that is %s", p, d.Steps[i].Kind, s.Phase)
		}
	}
	if err := s.checkStarts(d, way); err != nil {
		return err
	}
	if err := s.checkPresumed(d, way); err != nil {
		return err
	}
	return s.checkUndos(d)
}

// check looks at one step by itself.
func (st *StepState) check() error {
	fresh := st.Phase == Pending || st.Phase == Skipped && st.Attempt == 0
	switch {
	case !st.Phase.Valid():
		return fmt.Errorf("%s is no phase", st.Phase)
	case fresh && (st.Attempt != 0 || st.Reply != nil || st.Error != ""):
		return fmt.Errorf("%s was never called, but has an attempt, a reply or an error", st.Phase)
	case !fresh && (st.Attempt < 1 || st.Attempt > math.MaxInt32):
		return fmt.Errorf("attempt is %d, want 1 to %d", st.Attempt, math.MaxInt32)
	case len(st.Error) > MaxError:
		return fmt.Errorf("error is %d bytes long, at most %d are allowed", len(st.Error), MaxError)
	case st.Reply != nil && (st.Phase == Doing || st.Phase == Refused || st.Phase == Skipped):
		return fmt.Errorf("%s has a reply", st.Phase)
	}
	return nil
}

// checkPhase looks at the state of the whole against the number of steps in
// each phase.
func (s State) checkPhase(d *Definition) error {
	var n [len(phaseNames)]int
	for i := range s.Steps {
		n[s.Steps[i].Phase]++
	}
	switch turned := s.Cause != nil; {
	case !s.Phase.Valid() || s.Phase == txn.Committing:
		return fmt.Errorf("%s is no state of a saga", s.Phase)
	case s.Cause != nil && s.Cause.Code == "":
		return errors.New("cause.code is empty")
	case s.Phase == txn.Abandoned && !turned:
		return errors.New("ABANDONED has no cause")
	case s.Phase == txn.Abandoned:
		return nil
	case turned != (s.Phase == txn.RollingBack || s.Phase == txn.RolledBack || s.Phase == txn.Parked):
		return fmt.Errorf("cause is set: %t, which is illegal in a saga that is %s", turned, s.Phase)
	case s.Phase == txn.Running && n[Doing] == 0:
		return errors.New("RUNNING has no step that is DOING: it would never go on")
	case s.Phase == txn.RollingBack && n[Undoing] == 0:
		return errors.New("ROLLING_BACK has no step that is UNDOING: it would never go on")
	case s.Phase == txn.Parked && n[Stuck] == 0:
		return errors.New("PARKED has no step that is STUCK")
	case s.pivotPassed(d) && (s.Phase == txn.RollingBack || s.Phase == txn.RolledBack):
		return fmt.Errorf("the pivot is passed, but the saga is %s", s.Phase)
	}
	return nil
}

// legalPhase is the table of the phases that a step may have.
func legalPhase(state txn.State, way way, k Kind, p StepPhase) bool {
	undoable := k != Retriable
	switch {
	case state == txn.Committed:
		return p.countsAsDone()
	case way == onward:
		return p == Pending || p == Doing || p.countsAsDone() || p == Stuck && state == txn.Parked && !undoable
	case !undoable: // on the way back there is nothing to do about it
		return p == Pending || p == Doing || p.countsAsDone() || p == Refused
	case p == UndoSkipped || p == Stuck:
		return k != Pivot && (p != Stuck || state == txn.Parked)
	case state == txn.RolledBack:
		return p == Pending || p == Skipped || p == Undone
	default:
		return p == Pending || p.countsAsDone() || p == Undoing || p == Undone
	}
}

// checkStarts: a step starts only when everything before it is done, and on
// the way forward it starts then.
func (s State) checkStarts(d *Definition, way way) error {
	var passed set
	for i := range s.Steps {
		st := &s.Steps[i]
		ready := passed.hasAll(d.Steps[i].After)
		switch called := st.Attempt > 0; {
		case called && !ready:
			return d.wrong(i, "%s, but not everything before it was done", st.Phase)
		case way == onward && ready && st.Phase == Pending:
			return d.wrong(i, "PENDING, but everything before it is done")
		case called && st.Phase.wasDone(d.Steps[i].Kind), st.Phase == Skipped && ready,
			called && way != onward && d.Steps[i].Kind == Retriable: // what follows was presumed to be called
			passed.add(i)
		}
	}
	return nil
}

// wasDone reports whether a step in phase p may have been done once.
func (p StepPhase) wasDone(k Kind) bool {
	return p.countsAsDone() || k != Retriable && (p == Undoing || p == Undone || p == UndoSkipped || p == Stuck)
}

// checkUndos: a step is undone only after everything that depends on it, and
// then at once.
func (s State) checkUndos(d *Definition) error {
	if s.Phase != txn.RollingBack && s.Phase != txn.RolledBack && s.Phase != txn.Parked || s.pivotPassed(d) {
		return nil
	}
	before := d.ancestors(len(d.Steps))
	for i := range s.Steps {
		blocker := -1
		for j := i + 1; j < len(s.Steps); j++ {
			if before[j].has(i) && s.Steps[j].owesUndo(d.Steps[j].Kind) {
				blocker = j
			}
		}
		switch p, waiting := s.Steps[i].Phase, s.Steps[i].Attempt > 0 && s.Steps[i].Phase.countsAsDone(); {
		case d.Steps[i].Kind == Retriable || p == Skipped && !waiting:
		case blocker >= 0 && !waiting:
			return d.wrong(i, "%s, but step %q that depends on it is %s", p, d.Steps[blocker].Name, s.Steps[blocker].Phase)
		case blocker < 0 && waiting:
			return d.wrong(i, "%s, but nothing keeps it from being undone", p)
		}
	}
	return nil
}
