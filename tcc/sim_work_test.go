package tcc_test

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// work is what the application of a two-phase message does by itself between
// its tries and its decision, and what its check knows of it.
type work struct {
	own       bool // there is some; otherwise nothing expires
	gone      bool // the application has crashed: it never speaks again
	mortal    bool // and does so some time
	forgetful int  // chance in a hundred that the check does not know
	overruled bool // an operator decided, and has to answer for it

	heard     bool // every try was answered with OK
	done      bool // it did its work, or failed to
	committed bool // which took effect
	barred    bool // the check said that it never will
}

func newWork(rnd *rand.Rand) work {
	return work{
		own: rnd.IntN(2) == 0, mortal: rnd.IntN(2) == 0, forgetful: []int{0, 30, 90}[rnd.IntN(3)],
	}
}

// twoPhase is the application's next step once every branch was tried.
func (s *sim) twoPhase() error {
	w := &s.work
	if w.mortal && s.rnd.IntN(4) == 0 {
		w.gone = true
	}
	w.heard = w.heard || s.state.Phase == txn.Running && !slices.ContainsFunc(s.state.Branches,
		func(b tcc.BranchState) bool { return b.Phase != tcc.Tried })
	switch {
	case w.gone || !w.heard:
		return nil
	case !w.done:
		w.done, w.committed = true, s.commits && !w.barred
		s.log("the application's work: committed %t", w.committed)
		return nil
	case s.state.Phase != txn.Running && w.committed:
		return s.commit() // which is told when it was decided otherwise
	case s.state.Phase != txn.Running:
		return s.abort()
	}
	if s.state.Checking != nil {
		s.acted[map[bool]string{true: "committed while checked", false: "aborted while checked"}[w.committed]]++
	}
	if w.committed {
		return s.advance(tcc.Commit{})
	}
	return s.advance(txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted, Message: "its work failed"}})
}

// answerCheck is the application's check: it knows what took effect, and bars
// what did not before it says so.
func (s *sim) answerCheck(ev *txn.Replied) {
	w := &s.work
	switch {
	case s.storm && s.rnd.IntN(100) < w.forgetful:
		ev.Outcome, ev.Message = txn.Unknown, "cannot tell"
	case w.committed:
		ev.Outcome = txn.OK
	default:
		w.barred = true
		ev.Outcome, ev.Message = txn.Refused, "no such work"
	}
	if s.storm && s.rnd.IntN(100) < w.forgetful {
		ev.Outcome, ev.Message = txn.Unknown, "failed on the way back"
	}
	s.log("  check #%d: %s", ev.Attempt, ev.Outcome)
}

// expire is the deadline. Coming again it changes nothing.
func (s *sim) expire() error {
	was := s.state
	ev := tcc.Expire{Reason: txn.Reason{Code: txn.CodeDeadline}}
	if err := s.advance(ev); err != nil {
		return err
	}
	again, err := s.state.Advance(simDef, ev)
	if err != nil || again.Phase != s.state.Phase || again.Checking != s.state.Checking {
		return fmt.Errorf("a second expire made %s of %s: %w", describeState(again), describeState(s.state), err)
	}
	if was.Checking != nil && s.state.Checking != was.Checking {
		return fmt.Errorf("expire changed the check")
	}
	return nil
}

// agrees holds the decision against the work: what took effect is committed,
// what did not is not, whoever died and whatever was lost.
func (w *work) agrees(decision txn.State) error {
	switch {
	case !w.own || w.overruled:
		return nil
	case decision == txn.Committing && !w.committed:
		return fmt.Errorf("decided to commit, but the application's work did not")
	case decision == txn.RollingBack && w.committed:
		return fmt.Errorf("decided to turn back, but the application's work committed")
	}
	return nil
}
