package saga_test

import (
	"fmt"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// unpark reports whether an operator looks at a saga for which there is nothing
// else to do.
func (s *sim) unpark() bool { return s.state.Phase == txn.Parked && s.operator > 0 }

// operate is what an operator does: something at random, legal or not. What is
// said by hand the rooms take as true.
func (s *sim) operate() error {
	s.operator--
	branch := s.rnd.IntN(len(s.def.Steps)+1) - 1
	v := verbs[s.rnd.IntN(len(verbs))]
	if branch != txn.All && v.Whole() || branch == txn.All && !v.Whole() {
		v = txn.VerbRetry
	}
	if v == txn.VerbAbandon && s.rnd.IntN(3) > 0 {
		return nil
	}
	if legal := s.state.Legal(s.def, branch); len(legal) > 0 && branch != txn.All && s.rnd.IntN(4) > 0 {
		v = legal[s.rnd.IntN(len(legal))]
	}
	was := s.state
	if _, err := checkVerb(s.def, was, branch, v); err != nil || was.Permits(s.def, branch, v) != nil {
		return err
	}
	if v == txn.VerbAbort {
		return s.abort()
	}
	what := v.String()
	if branch != txn.All {
		what += " " + was.Steps[branch].Phase.String()
		s.asserted(was.Steps[branch].Phase, branch, v)
	}
	s.acted[what]++
	return s.advance(operatorEvent(v, branch))
}

// asserted takes an operator's word about a step in phase p.
func (s *sim) asserted(p saga.StepPhase, i int, v txn.Verb) {
	r := &s.rooms[i]
	undo := p == saga.Undoing || p == saga.Stuck && !s.onward()
	switch v {
	case txn.VerbSkip:
		r.skipped, r.excused = r.skipped || !undo, r.excused || undo
	case txn.VerbComplete:
		r.byHand, r.excused = r.byHand || !undo, r.excused || undo
		if !undo {
			r.handReply = []byte("by hand")
		}
	case txn.VerbFail:
		r.failed = true
		if undo && s.def.Steps[i].Kind == saga.Pivot {
			r.byHand, r.handReply = true, nil // the pivot stands
		}
	}
	s.log("operator: %s of step %d, which is %s", v, i, fmt.Sprint(p))
}
