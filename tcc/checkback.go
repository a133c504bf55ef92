package tcc

import (
	"fmt"
	"math"

	"github.com/amends-dev/amends/saga/txn"
)

// expire is what the deadline makes of s.
func (s State) expire(d *Definition, why txn.Reason) (State, error) {
	if s.decided() || s.Checking != nil {
		return s, nil
	}
	next := s.clone()
	if !d.Check.set() || s.pending() >= 0 {
		next.turnBack(why)
	} else {
		next.Checking = &Checking{Attempt: 1}
	}
	return next, nil
}

// pending returns the index of the first branch whose try is unanswered in a
// transaction that is undecided, -1 when there is none.
func (s State) pending() int {
	for i := range s.Branches {
		if s.Branches[i].Phase != Tried {
			return i
		}
	}
	return -1
}

// checked is what the answer to a check makes of s. Only an answer decides: one
// that does not know is asked again, however often it takes.
func (s State) checked(d *Definition, ev txn.Replied) (State, error) {
	switch {
	case !d.Check.set():
		return s, fmt.Errorf("%w: the definition has no check", ErrBadEvent)
	case ev.Branch != txn.All:
		return s, fmt.Errorf("%w: a check is about no branch, not about %d", ErrBadEvent, ev.Branch)
	case !ev.Outcome.Valid():
		return s, fmt.Errorf("%w: %s is no outcome, want ok, refused or unknown", ErrBadEvent, ev.Outcome)
	case s.Checking == nil, ev.Outcome != txn.OK && ev.Attempt != s.Checking.Attempt:
		return s, nil
	}
	next := s.clone()
	switch ev.Outcome {
	case txn.OK:
		next.decide(txn.Committing, Confirming)
	case txn.Refused:
		next.turnBack(txn.Reason{Code: txn.CodeDeadline, Message: didNotCommit(ev.Message)})
	case txn.Unknown:
		next.Checking = &Checking{
			Attempt: min(s.Checking.Attempt+1, math.MaxInt32), // saturates rather than overflow
			Error:   clip(ev.Message),
		}
	}
	return next, nil
}

// didNotCommit is the reason of a transaction that turns back for its check.
func didNotCommit(message string) string {
	const why = "undecided, and the check says that the work did not commit"
	if message == "" {
		return why
	}
	return why + ": " + message
}
