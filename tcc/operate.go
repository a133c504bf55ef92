package tcc

import (
	"fmt"
	"math"

	"github.com/amends-dev/amends/saga/txn"
)

// Permits returns nil when an operator's verb is legal now: about the branch
// with that index, or about the whole with txn.All. Otherwise the error is
// txn.ErrIllegal and says why and what would be legal, or ErrBadEvent when
// there is no such branch or verb. Advance refuses the verb's event with the
// same error, but for txn.Abort, which changes nothing when the transaction
// turns back already.
func (s State) Permits(_ *Definition, branch int, v txn.Verb) error {
	return s.permits(branch, v)
}

func (s State) permits(branch int, v txn.Verb) error {
	if branch < txn.All || branch >= len(s.Branches) {
		return fmt.Errorf("%w: there is no branch %d of %d", ErrBadEvent, branch, len(s.Branches))
	}
	if !v.Valid() {
		return fmt.Errorf("%w: %s is no verb", ErrBadEvent, v)
	}
	why := s.refusal(branch, v)
	if why == "" {
		return nil
	}
	if branch == txn.All || s.Phase.Finished() {
		return txn.Illegal(why, s.legal(txn.All))
	}
	legal := s.legal(branch)
	for _, v := range s.legal(txn.All) {
		if v.Whole() {
			legal = append(legal, v)
		}
	}
	return txn.Illegal(fmt.Sprintf("branch %q is %s: %s", s.Branches[branch].Name, s.Branches[branch].Phase, why), legal)
}

// Legal returns the verbs that an operator may use now on the branch with that
// index, or on the whole with txn.All, in the order of their constants; none
// for a branch that there is not.
func (s State) Legal(_ *Definition, branch int) []txn.Verb { return s.legal(branch) }

func (s State) legal(branch int) []txn.Verb {
	if branch < txn.All || branch >= len(s.Branches) {
		return nil
	}
	var legal []txn.Verb
	for v := txn.VerbRetry; v <= txn.VerbAbandon; v++ {
		if s.refusal(branch, v) == "" {
			legal = append(legal, v)
		}
	}
	return legal
}

// refusal says why v is not legal now, and nothing when it is.
func (s State) refusal(branch int, v txn.Verb) string {
	switch {
	case s.Phase.Finished():
		return fmt.Sprintf("the transaction is %s: it has ended, and nothing changes it", s.Phase)
	case v.Whole() && branch != txn.All:
		return fmt.Sprintf("%s is about the whole transaction", v)
	case v == txn.VerbAbort && s.Decision == txn.Committing:
		return fmt.Sprintf("the transaction is %s: it was decided to commit, and can no longer turn back", s.Phase)
	case v == txn.VerbAbort && s.Decision == txn.RollingBack:
		return fmt.Sprintf("the transaction is %s: it turns back already", s.Phase)
	case v == txn.VerbComplete && branch == txn.All && s.Checking != nil:
		return ""
	case v == txn.VerbRetry && branch == txn.All && !s.waits():
		return "nothing is owed: it waits for its application to commit or abort"
	case v.Whole() || v == txn.VerbRetry && branch == txn.All:
		return ""
	case branch == txn.All:
		return fmt.Sprintf("%s is about one branch: name it", v)
	}
	return s.Branches[branch].Phase.refusal(v)
}

// waits reports whether an answer is owed by a participant, or stuck.
func (s State) waits() bool {
	if s.Checking != nil {
		return true
	}
	for i := range s.Branches {
		if p := s.Branches[i].Phase; p == Stuck || p.asks() != 0 {
			return true
		}
	}
	return false
}

// refusal is the table of what an operator may do about a branch in phase p of
// a transaction that has not ended. A reservation cannot be made by hand or
// done without: its confirm would not find it, and the application waits for
// its reply.
func (p BranchPhase) refusal(v txn.Verb) string {
	switch {
	case p == Trying && (v == txn.VerbSkip || v == txn.VerbComplete):
		return "only the participant can reserve; fail it, and the transaction turns back"
	case p == Stuck && v == txn.VerbFail:
		return "it was refused already"
	case p == Stuck || p.asks() != 0:
		return ""
	case p == Tried:
		return "nothing is owed before it is decided; abort cancels it"
	}
	return "nothing is owed"
}

// operated is what an operator's event makes of s.
func (s State) operated(ev txn.Event) (State, error) {
	branch, verb := txn.Target(ev)
	if err := s.permits(branch, verb); err != nil {
		return s, err
	}
	next := s.clone()
	switch ev := ev.(type) {
	case txn.TryAgain:
		if !next.tryAgain(branch) {
			return s, nil
		}
	case txn.Skip:
		next.Branches[branch].Phase = Skipped
	case txn.Complete:
		if branch == txn.All {
			next.decide(txn.Committing, Confirming)
			break
		}
		next.Branches[branch].succeeded(txn.Replied{Op: s.owed()})
	case txn.Fail:
		next.refused(&next.Branches[branch], txn.Replied{Op: s.owed(), Message: ev.Message})
	case txn.Abandon:
		next.abandoned(ev.Reason)
	}
	next.settle()
	return next, nil
}

// owed returns the operation that branches are in or stuck in.
func (s State) owed() txn.Op {
	switch {
	case s.Decision == txn.Committing:
		return txn.Confirm
	case s.Decision == txn.RollingBack:
		return txn.Cancel
	}
	return txn.Try
}

// tryAgain asks again for what is stuck, at that branch or at every one. It
// reports whether anything was.
func (s *State) tryAgain(branch int) bool {
	asks, found := Cancelling, false
	if s.Decision == txn.Committing {
		asks = Confirming
	}
	for i := range s.Branches {
		if b := &s.Branches[i]; b.Phase == Stuck && (i == branch || branch == txn.All) {
			b.Phase, found = asks, true
			b.Attempt = min(b.Attempt+1, math.MaxInt32) // saturates rather than overflow
		}
	}
	return found
}

// abandoned ends the transaction. The reason replaces the one that it turned
// back or was parked for, which the audit trail keeps.
func (s *State) abandoned(why txn.Reason) {
	if why.Code == "" {
		why.Code = txn.CodeAbandoned
	}
	s.Phase, s.Cause, s.Checking = txn.Abandoned, nil, nil
	s.blame(why)
}
