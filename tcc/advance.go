package tcc

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/amends-dev/amends/saga/txn"
)

// Errors of Advance; test with errors.Is. Each leaves the state as it was.
var (
	// ErrBadEvent says that an event can be about no state of this
	// transaction: it names a branch, operation or outcome that does not
	// exist, or is of another kind of transaction.
	ErrBadEvent = errors.New("tcc: bad event")
	// ErrDecided says that the transaction was decided, the other way or
	// before a branch was tried, or was ended by an operator.
	ErrDecided = errors.New("tcc: already decided")
	// ErrExpired says that a try came after the deadline, while it is asked
	// whether the application's own work committed.
	ErrExpired = errors.New("tcc: the deadline has passed")
	// ErrTryPending says that a commit came while a try is unanswered.
	ErrTryPending = errors.New("tcc: a try is unanswered")
	// ErrBranchExists says that a branch of that name with other content is
	// registered.
	ErrBranchExists = errors.New("tcc: branch exists with other content")
	// ErrTooManyBranches says that there are MaxBranches already.
	ErrTooManyBranches = errors.New("tcc: too many branches")
)

// Try registers a branch, and so asks for its try. Repeating it with the same
// content changes nothing.
type Try struct {
	Branch Branch
}

// EventType returns "try".
func (Try) EventType() string { return "try" }

// Commit decides to confirm every branch. Repeating it changes nothing.
type Commit struct{}

// EventType returns "commit".
func (Commit) EventType() string { return "commit" }

// Expire says that the deadline has passed. An undecided transaction with a
// check asks it, one without turns back; and so does one with a try that is
// unanswered, because the application's own work comes after its tries. It
// changes nothing that is decided or checked already.
type Expire struct {
	Reason txn.Reason // why it turns back, if it does now
}

// EventType returns "expire".
func (Expire) EventType() string { return "expire" }

// Advance returns the state after ev happened. It takes Try, Commit, Expire,
// txn.Replied, txn.Abort and the operator's txn.TryAgain, Skip, Complete, Fail
// and Abandon. A reply that comes too late or twice leaves the state as it is,
// with no error. Each error returns s: ErrBadEvent for any event; ErrDecided,
// ErrExpired, ErrBranchExists, ErrTooManyBranches and ErrInvalidBranch for Try; ErrDecided
// and ErrTryPending for Commit; ErrDecided, which is then txn.ErrIllegal too,
// for an Abort after the decision to commit or the end; txn.ErrIllegal for an
// operator's event that [State.Permits] refuses.
//
// The new state keeps the event's bytes: don't write to them afterwards.
func (s State) Advance(d *Definition, ev txn.Event) (State, error) {
	next, err := s.advance(d, ev)
	if err != nil {
		return s, err
	}
	if invariants {
		if err := next.Check(d); err != nil {
			return s, fmt.Errorf("after %s: %w", ev.EventType(), err)
		}
	}
	return next, nil
}

func (s State) advance(d *Definition, ev txn.Event) (State, error) {
	switch ev := ev.(type) {
	case Try:
		return s.try(ev.Branch)
	case Commit:
		return s.commit()
	case Expire:
		return s.expire(d, ev.Reason)
	case txn.Abort:
		return s.abort(ev.Reason)
	case txn.Replied:
		if ev.Op == txn.Check {
			return s.checked(d, ev)
		}
		return s.replied(ev)
	case txn.TryAgain, txn.Skip, txn.Complete, txn.Fail, txn.Abandon:
		return s.operated(ev)
	}
	return s, fmt.Errorf("%w: a TCC transaction takes no %T", ErrBadEvent, ev)
}

func (s State) try(b Branch) (State, error) {
	if s.decided() {
		return s, fmt.Errorf("%w: branch %q comes too late: the transaction is %s", ErrDecided, b.Name, s.Phase)
	}
	if s.Checking != nil {
		return s, fmt.Errorf("%w: branch %q comes too late: it is asked whether the application's work committed",
			ErrExpired, b.Name)
	}
	if i := s.Find(b.Name); i >= 0 {
		if s.Branches[i].Branch.equal(&b) {
			return s, nil
		}
		return s, fmt.Errorf("%w: branch %q: give the other one a name of its own", ErrBranchExists, b.Name)
	}
	if err := b.Validate(); err != nil {
		return s, err
	}
	if len(s.Branches) >= MaxBranches {
		return s, fmt.Errorf("%w: branch %q: at most %d are allowed", ErrTooManyBranches, b.Name, MaxBranches)
	}
	if len(b.Payload) == 0 { // empty and nil are the same once encoded
		b.Payload = nil
	}
	next := s.clone()
	next.Branches = append(next.Branches, BranchState{Branch: b, Phase: Trying, Attempt: 1})
	return next, nil
}

func (s State) commit() (State, error) {
	if s.decided() {
		if s.Decision == txn.Committing && s.Phase != txn.Abandoned {
			return s, nil
		}
		return s, fmt.Errorf("%w: the transaction is %s", ErrDecided, s.Phase)
	}
	if i := s.pending(); i >= 0 {
		return s, fmt.Errorf("%w: branch %q is %s: wait for it, or abort", ErrTryPending,
			s.Branches[i].Name, s.Branches[i].Phase)
	}
	next := s.clone()
	next.decide(txn.Committing, Confirming)
	return next, nil
}

func (s State) abort(why txn.Reason) (State, error) {
	if s.decided() {
		if s.Decision == txn.RollingBack && s.Phase != txn.Abandoned {
			return s, nil
		}
		return s, fmt.Errorf("%w: %w", ErrDecided, s.permits(txn.All, txn.VerbAbort))
	}
	next := s.clone()
	next.turnBack(why)
	return next, nil
}

func (s State) replied(ev txn.Replied) (State, error) {
	switch {
	case ev.Branch < 0 || ev.Branch >= len(s.Branches):
		return s, fmt.Errorf("%w: there is no branch %d of %d", ErrBadEvent, ev.Branch, len(s.Branches))
	case ev.Op != txn.Try && ev.Op != txn.Confirm && ev.Op != txn.Cancel:
		return s, fmt.Errorf("%w: a TCC transaction asks for no %s, want try, confirm, cancel or check", ErrBadEvent, ev.Op)
	case !ev.Outcome.Valid():
		return s, fmt.Errorf("%w: %s is no outcome, want ok, refused or unknown", ErrBadEvent, ev.Outcome)
	}
	b := &s.Branches[ev.Branch]
	if s.Phase.Finished() || b.Phase.asks() != ev.Op {
		return s, nil
	}
	if ev.Outcome != txn.OK && ev.Attempt != b.Attempt {
		return s, nil
	}
	next := s.clone()
	switch b = &next.Branches[ev.Branch]; ev.Outcome {
	case txn.OK:
		b.succeeded(ev)
	case txn.Refused:
		next.refused(b, ev)
	case txn.Unknown:
		b.Error = clip(ev.Message)
		next.unknown(b, ev)
	}
	next.settle()
	return next, nil
}

func (s State) clone() State {
	s.Branches = slices.Clone(s.Branches)
	return s
}

// decided reports whether s no longer takes branches: commit or abort was
// decided, or an operator ended it.
func (s State) decided() bool { return s.Phase != txn.Running }

func (b *BranchState) succeeded(ev txn.Replied) {
	b.Error = ""
	switch ev.Op {
	case txn.Try:
		b.Phase = Tried
		if len(ev.Reply) > 0 { // empty and nil are the same once encoded
			b.Reply = ev.Reply
		}
	case txn.Confirm:
		b.Phase = Confirmed
	case txn.Cancel:
		b.Phase = Cancelled
	}
}

func (s *State) refused(b *BranchState, ev txn.Replied) {
	b.Error = clip(ev.Message)
	if ev.Op != txn.Try {
		b.Phase = Stuck
		return
	}
	s.turnBack(txn.Reason{Branch: b.Name, Code: txn.CodeRefused, Message: ev.Message})
}

func (s *State) unknown(b *BranchState, ev txn.Replied) {
	if ev.Op == txn.Try && b.Retry.Exhausted(b.Attempt) {
		s.turnBack(txn.Reason{
			Branch: b.Name, Code: txn.CodeExhausted,
			Message: fmt.Sprintf("still unknown after attempt %d: %s", b.Attempt, ev.Message),
		})
		return
	}
	b.Attempt = min(b.Attempt+1, math.MaxInt32) // saturates rather than overflow
}

// turnBack decides to cancel every branch, the refused and unknown ones too.
func (s *State) turnBack(why txn.Reason) {
	s.blame(why)
	s.decide(txn.RollingBack, Cancelling)
}

// decide sets every branch on its way to the decision's end.
func (s *State) decide(decision txn.State, phase BranchPhase) {
	s.Decision, s.Checking = decision, nil
	for i := range s.Branches {
		s.Branches[i].Phase, s.Branches[i].Attempt = phase, 1
	}
	s.settle()
}

// blame records why, unless there was a reason before.
func (s *State) blame(why txn.Reason) {
	if s.Cause != nil {
		return
	}
	if why.Code == "" {
		why.Code = txn.CodeAborted
	}
	s.Cause = &txn.Reason{Branch: clip(why.Branch), Code: clip(why.Code), Message: clip(why.Message)}
}

// settle says where the branches leave a decided transaction.
func (s *State) settle() {
	if s.Decision == 0 || s.Phase.Finished() {
		return
	}
	owed, stuck := false, false
	for i := range s.Branches {
		owed = owed || s.Branches[i].Phase.asks() != 0
		stuck = stuck || s.Branches[i].Phase == Stuck
	}
	if s.Decision == txn.Committing {
		s.blameStuck()
	}
	switch {
	case stuck:
		s.Phase = txn.Parked
	case owed:
		s.Phase = s.Decision
	case s.Decision == txn.Committing:
		s.Phase = txn.Committed
	default:
		s.Phase = txn.RolledBack
	}
}

// blameStuck keeps the reason of a transaction that commits true: it is about a
// branch that is stuck, and there is none when none is.
func (s *State) blameStuck() {
	if s.Cause != nil {
		if i := s.Find(s.Cause.Branch); i >= 0 && s.Branches[i].Phase == Stuck {
			return
		}
	}
	s.Cause = nil
	for i := range s.Branches {
		if b := &s.Branches[i]; b.Phase == Stuck {
			s.blame(txn.Reason{Branch: b.Name, Code: txn.CodeRefused, Message: b.Error})
			return
		}
	}
}
