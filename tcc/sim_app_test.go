package tcc_test

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// apply is what the application does next.
func (s *sim) apply() error {
	switch {
	case s.work.own && (s.work.gone || len(s.wanted) == 0):
		return s.twoPhase()
	case len(s.wanted) > 0:
		return s.try()
	case s.commits:
		return s.commit()
	default:
		return s.abort()
	}
}

func (s *sim) try() error {
	b := s.wanted[0]
	if s.state.Checking != nil {
		_, err := s.state.Advance(simDef, tcc.Try{Branch: b})
		if !errors.Is(err, tcc.ErrExpired) {
			return fmt.Errorf("try while it is checked: got %v, want ErrExpired", err)
		}
		s.work.gone = true // it is told, and does not do its work
		return nil
	}
	if err := s.advance(tcc.Try{Branch: b}); err != nil {
		return err
	}
	other := b
	other.Payload = []byte("other")
	if _, err := s.state.Advance(simDef, tcc.Try{Branch: other}); !errors.Is(err, tcc.ErrBranchExists) {
		return fmt.Errorf("a branch with other content: got %v, want ErrBranchExists", err)
	}
	if s.rnd.IntN(4) > 0 { // otherwise the application repeats it
		s.wanted = s.wanted[1:]
	}
	return nil
}

// commit must be refused with the right word when it comes at a wrong time.
func (s *sim) commit() error {
	var want error
	switch {
	case s.state.Decision == txn.RollingBack || s.state.Phase == txn.Abandoned:
		want = tcc.ErrDecided
	case s.state.Decision == 0 && s.state.Checking == nil && len(s.state.Outstanding(simDef)) > 0:
		want = tcc.ErrTryPending
	case s.state.Decision == 0 && (len(s.wanted) > 0 || !s.commits):
		return nil // the application does not want to, yet
	}
	if want == nil {
		return s.advance(tcc.Commit{})
	}
	if next, err := s.state.Advance(simDef, tcc.Commit{}); !errors.Is(err, want) || !reflect.DeepEqual(next, s.state) {
		return fmt.Errorf("commit while %s: got %v, want %w", s.state.Phase, err, want)
	}
	return nil
}

func (s *sim) abort() error {
	ev := txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted}}
	if s.state.Decision != txn.Committing && s.state.Phase != txn.Abandoned {
		return s.advance(ev)
	}
	if next, err := s.state.Advance(simDef, ev); !errors.Is(err, tcc.ErrDecided) || !errors.Is(err, txn.ErrIllegal) || !reflect.DeepEqual(next, s.state) {
		return fmt.Errorf("abort while %s: got %v, want ErrDecided", s.state.Phase, err)
	}
	return nil
}

// tryTooLate: a branch that comes after the decision is refused.
func (s *sim) tryTooLate() error {
	if s.state.Phase == txn.Running {
		return nil
	}
	ev := tcc.Try{Branch: tcc.Branch{Name: "late", Action: "svc.act"}}
	if next, err := s.state.Advance(simDef, ev); !errors.Is(err, tcc.ErrDecided) || !reflect.DeepEqual(next, s.state) {
		return fmt.Errorf("try while %s: got %v, want ErrDecided", s.state.Phase, err)
	}
	return nil
}
