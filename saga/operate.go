package saga

import (
	"fmt"

	"github.com/amends-dev/amends/saga/txn"
)

// Permits returns nil when an operator's verb is legal now: about the step with
// that index, or about the whole with txn.All. Otherwise the error is
// txn.ErrIllegal and says why and what would be legal, or ErrBadEvent when
// there is no such step or verb. Advance refuses the verb's event with the same
// error, but for txn.Abort, which then changes nothing.
func (s State) Permits(d *Definition, branch int, v txn.Verb) error {
	if branch < txn.All || branch >= len(s.Steps) {
		return fmt.Errorf("%w: there is no step %d, want 0 to %d, or %d for all",
			ErrBadEvent, branch, len(s.Steps)-1, txn.All)
	}
	if !v.Valid() {
		return fmt.Errorf("%w: %s is no verb", ErrBadEvent, v)
	}
	why := s.refusal(d, branch, v)
	if why == "" {
		return nil
	}
	if branch == txn.All || s.Phase.Finished() {
		return txn.Illegal(why, s.Legal(d, txn.All))
	}
	legal := s.Legal(d, branch)
	for _, v := range s.Legal(d, txn.All) {
		if v.Whole() {
			legal = append(legal, v)
		}
	}
	return txn.Illegal(fmt.Sprintf("step %q is %s: %s", d.Steps[branch].Name, s.Steps[branch].Phase, why), legal)
}

// Legal returns the verbs that an operator may use now on the step with that
// index, or on the whole with txn.All, in the order of their constants; none
// for a step that there is not.
func (s State) Legal(d *Definition, branch int) []txn.Verb {
	if branch < txn.All || branch >= len(s.Steps) {
		return nil
	}
	var legal []txn.Verb
	for v := txn.VerbRetry; v <= txn.VerbAbandon; v++ {
		if s.refusal(d, branch, v) == "" {
			legal = append(legal, v)
		}
	}
	return legal
}

// refusal says why v is not legal now, and nothing when it is.
func (s State) refusal(d *Definition, branch int, v txn.Verb) string {
	switch {
	case s.Phase.Finished():
		return fmt.Sprintf("the saga is %s: it has ended, and nothing changes it", s.Phase)
	case v.Whole() && branch != txn.All:
		return fmt.Sprintf("%s is about the whole saga", v)
	case v == txn.VerbAbort:
		return s.abortRefusal(d)
	case v == txn.VerbAbandon || v == txn.VerbRetry && branch == txn.All: // an unfinished saga always waits for something
		return ""
	case branch == txn.All:
		return fmt.Sprintf("%s is about one step: name it", v)
	case s.way(d) == onward:
		return s.refusalOnward(d, branch, v)
	}
	return s.refusalBack(d, branch, v)
}

func (s State) abortRefusal(d *Definition) string {
	switch {
	case s.canTurnBack(d):
		return ""
	case s.TurnedBack(d):
		return fmt.Sprintf("the saga is %s: it turns back already", s.Phase)
	}
	return fmt.Sprintf("the saga is %s: it has passed its pivot %q and can no longer turn back",
		s.Phase, d.Steps[d.pivot()].Name)
}

func (s State) refusalOnward(d *Definition, i int, v txn.Verb) string {
	switch p := s.Steps[i].Phase; {
	case v == txn.VerbComplete && (p == Doing || p == Stuck):
		return s.refusesReply(d, i)
	case s.Steps[i].Presumed && v == txn.VerbSkip:
		return presumed
	case p == Doing, p == Pending && v == txn.VerbSkip, p == Stuck && v != txn.VerbFail:
		return ""
	case p == Pending:
		return "it was not asked for yet"
	case p == Stuck:
		return "it was refused already"
	case p == Skipped:
		return "it was skipped already"
	case s.canTurnBack(d):
		return "nothing is owed; abort undoes it"
	}
	return "nothing is owed, and the saga can no longer turn back"
}

// refusalBack: while the pivot is fenced the saga may go forward after all, so
// that it makes sense to skip or complete the retriable steps beside it. The
// fence itself cannot be skipped: its answer tells which way the saga goes.
func (s State) refusalBack(d *Definition, i int, v txn.Verb) string {
	p, kind := s.Steps[i].Phase, d.Steps[i].Kind
	pivot := d.pivot()
	fenced := pivot >= 0 && s.Steps[pivot].Phase == Undoing
	switch {
	case p == Undoing && kind == Pivot && v == txn.VerbSkip:
		return "its undo tells which way the saga goes: complete it if the step does not stand, fail it if it does"
	case p == Undoing, p == Stuck && v != txn.VerbFail:
		return ""
	case p == Stuck:
		return "its undo was refused already"
	case p == Pending && !fenced:
		return "the saga turns back, so it does not start"
	case p == Undone || p == UndoSkipped || p == Skipped && s.Steps[i].Attempt == 0:
		return "nothing is owed"
	case kind != Retriable:
		return "its undo is not owed before that of the steps after it"
	case p.countsAsDone() || !fenced:
		return "there is nothing to undo"
	case v == txn.VerbSkip, v == txn.VerbComplete && p != Pending:
		return ""
	}
	return fmt.Sprintf("it is not asked for before the pivot %q is known to stand", d.Steps[pivot].Name)
}

// operated is what an operator's event makes of s.
func (s State) operated(d *Definition, ev txn.Event) (State, error) {
	branch, verb := txn.Target(ev)
	if err := s.Permits(d, branch, verb); err != nil {
		return s, err
	}
	next := s.clone()
	op := txn.Do
	if p := s.Steps[max(branch, 0)].Phase; p == Undoing || p == Stuck && s.way(d) == back {
		op = txn.Undo
	}
	switch ev := ev.(type) {
	case txn.TryAgain:
		if !next.tryAgain(d, branch) {
			return s, nil
		}
	case txn.Skip:
		next.Steps[branch].skipped(op)
	case txn.Complete:
		next.succeeded(txn.Replied{Branch: branch, Op: op, Reply: ev.Reply})
	case txn.Fail:
		next.refused(d, txn.Replied{Branch: branch, Op: op, Message: ev.Message})
	case txn.Abandon:
		next.abandoned(ev.Reason)
	}
	next.settle(d)
	return next, nil
}

// tryAgain asks again for what is stuck, at that step or at every one. It
// reports whether anything was.
func (s *State) tryAgain(d *Definition, branch int) bool {
	asks, found := Doing, false
	if s.way(d) == back {
		asks = Undoing
	}
	for i := range s.Steps {
		if st := &s.Steps[i]; st.Phase == Stuck && (i == branch || branch == txn.All) {
			st.Phase, found = asks, true
			st.again()
		}
	}
	return found
}

func (st *StepState) skipped(op txn.Op) {
	st.Phase = Skipped
	if op == txn.Undo {
		st.Phase = UndoSkipped
	}
}

// abandoned ends the run. The reason replaces the one that it turned back or
// was parked for, which the audit trail keeps.
func (s *State) abandoned(why txn.Reason) {
	if why.Code == "" {
		why.Code = txn.CodeAbandoned
	}
	s.Phase, s.Cause = txn.Abandoned, nil
	s.blame(why)
}
