package tcc_test

import (
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// unpark reports whether an operator looks at a transaction for which there is
// nothing else to do.
func (s *sim) unpark() bool { return s.state.Phase == txn.Parked && s.operator > 0 }

// operate is what an operator does: something at random, legal or not. What is
// said by hand the rooms take as true.
func (s *sim) operate() error {
	s.operator--
	branch := s.rnd.IntN(len(s.state.Branches)+1) - 1
	v := verbs[s.rnd.IntN(len(verbs))]
	if branch != txn.All && v.Whole() || branch == txn.All && !v.Whole() && v != txn.VerbComplete {
		v = txn.VerbRetry
	}
	if v.Whole() && s.state.Phase == txn.Running && s.rnd.IntN(4) > 0 {
		return nil
	}
	if legal := s.state.Legal(simDef, branch); len(legal) > 0 && branch != txn.All && s.rnd.IntN(4) > 0 {
		v = legal[s.rnd.IntN(len(legal))]
	}
	was := s.state
	if _, err := checkVerb(was, branch, v); err != nil || was.Permits(simDef, branch, v) != nil {
		return err
	}
	what := v.String()
	if branch != txn.All {
		p := was.Branches[branch].Phase
		what += " " + p.String()
		s.rooms[branch].excused = s.rooms[branch].excused || v == txn.VerbSkip || v == txn.VerbComplete
		s.rooms[branch].failed = s.rooms[branch].failed || v == txn.VerbFail && p != tcc.Trying
	}
	if branch == txn.All && v != txn.VerbRetry {
		s.work.overruled = true
	}
	s.acted[what]++
	return s.advance(operatorEvent(v, branch))
}
