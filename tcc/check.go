package tcc

import (
	"errors"
	"fmt"
	"math"

	"github.com/amends-dev/amends/saga/txn"
)

// ErrInvariant is what every error of Check wraps.
var ErrInvariant = errors.New("tcc: invariant does not hold")

// Check reports the first rule of the machine that s breaks. A state that
// Advance returned breaks none; one from elsewhere may.
func (s State) Check(d *Definition) error {
	if err := errors.Join(s.check(), s.checkChecking(d)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvariant, err)
	}
	return nil
}

func (s State) check() error {
	if n := len(s.Branches); n > MaxBranches {
		return fmt.Errorf("the state has %d branches, at most %d are allowed", n, MaxBranches)
	}
	var n [len(phaseNames)]int
	names := make(map[string]bool, len(s.Branches))
	for i := range s.Branches {
		b := &s.Branches[i]
		if err := b.check(); err != nil {
			return fmt.Errorf("branch %d %q: %w", i, b.Name, err)
		}
		if names[b.Name] {
			return fmt.Errorf("branch %d %q: name is taken", i, b.Name)
		}
		names[b.Name] = true
		if !s.legalPhase(b.Phase) {
			return fmt.Errorf("branch %d %q: %s is illegal in a transaction that is %s (decision %s)",
				i, b.Name, b.Phase, s.Phase, s.Decision)
		}
		n[b.Phase]++
	}
	return s.checkPhase(n)
}

// checkChecking looks at the check of a transaction: there is one in what is
// undecided with nothing else to wait for.
func (s State) checkChecking(d *Definition) error {
	c := s.Checking
	switch {
	case c == nil:
		return nil
	case !d.Check.set():
		return errors.New("checking is set, but the definition has no check")
	case s.Phase != txn.Running:
		return fmt.Errorf("checking is set, which is illegal in a transaction that is %s", s.Phase)
	case s.pending() >= 0:
		return fmt.Errorf("checking is set, but the try of branch %d is unanswered", s.pending())
	case c.Attempt < 1 || c.Attempt > math.MaxInt32:
		return fmt.Errorf("checking.attempt is %d, want 1 to %d", c.Attempt, math.MaxInt32)
	case len(c.Error) > MaxError:
		return fmt.Errorf("checking.error is %d bytes long, at most %d are allowed", len(c.Error), MaxError)
	}
	return nil
}

// check looks at one branch by itself.
func (b *BranchState) check() error {
	if err := b.Validate(); err != nil {
		return err
	}
	switch {
	case !b.Phase.Valid():
		return fmt.Errorf("%s is no phase", b.Phase)
	case b.Attempt < 1 || b.Attempt > math.MaxInt32:
		return fmt.Errorf("attempt is %d, want 1 to %d", b.Attempt, math.MaxInt32)
	case len(b.Error) > MaxError:
		return fmt.Errorf("error is %d bytes long, at most %d are allowed", len(b.Error), MaxError)
	case b.Reply != nil && b.Phase == Trying:
		return errors.New("TRYING has a reply")
	}
	return nil
}

// legalPhase is the table of the phases that a branch may have.
func (s State) legalPhase(p BranchPhase) bool {
	switch s.Phase {
	case txn.Running:
		return p == Trying || p == Tried
	case txn.Committing:
		return p == Confirming || p == Confirmed || p == Skipped
	case txn.Committed:
		return p == Confirmed || p == Skipped
	case txn.RollingBack:
		return p == Cancelling || p == Cancelled || p == Skipped
	case txn.RolledBack:
		return p == Cancelled || p == Skipped
	case txn.Parked:
		if s.Decision == txn.Committing {
			return p == Confirming || p == Confirmed || p == Stuck || p == Skipped
		}
		return p == Cancelling || p == Cancelled || p == Stuck || p == Skipped
	}
	return true
}

// checkPhase looks at the state of the whole against the number of branches in
// each phase.
func (s State) checkPhase(n [len(phaseNames)]int) error {
	if err := s.checkDecision(); err != nil {
		return err
	}
	backOrParked := s.Phase == txn.Parked || s.Decision == txn.RollingBack
	switch caused := s.Cause != nil; {
	case caused && s.Cause.Code == "":
		return errors.New("cause.code is empty")
	case s.Phase == txn.Abandoned && !caused:
		return errors.New("ABANDONED has no cause")
	case s.Phase == txn.Abandoned:
		return nil
	case caused != backOrParked:
		return fmt.Errorf("cause is set: %t, which is illegal in a transaction that is %s", caused, s.Phase)
	case s.Phase == txn.Committing && n[Confirming] == 0:
		return errors.New("COMMITTING has no branch that is CONFIRMING: it would never go on")
	case s.Phase == txn.RollingBack && n[Cancelling] == 0:
		return errors.New("ROLLING_BACK has no branch that is CANCELLING: it would never go on")
	case s.Phase == txn.Parked && n[Stuck] == 0:
		return errors.New("PARKED has no branch that is STUCK")
	}
	return nil
}

// checkDecision looks at the decision against the state of the whole.
func (s State) checkDecision() error {
	ok := false
	switch s.Phase {
	case txn.Running:
		ok = s.Decision == 0
	case txn.Committing, txn.Committed:
		ok = s.Decision == txn.Committing
	case txn.RollingBack, txn.RolledBack:
		ok = s.Decision == txn.RollingBack
	case txn.Parked:
		ok = s.Decision == txn.Committing || s.Decision == txn.RollingBack
	case txn.Abandoned:
		ok = s.Decision == 0 || s.Decision == txn.Committing || s.Decision == txn.RollingBack
	default:
		return fmt.Errorf("%s is no state of a transaction", s.Phase)
	}
	if !ok {
		return fmt.Errorf("decision %s is illegal in a transaction that is %s", s.Decision, s.Phase)
	}
	return nil
}
