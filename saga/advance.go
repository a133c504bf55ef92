package saga

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/amends-dev/amends/saga/txn"
)

// ErrBadEvent says that an event can be about no state of this saga: it names
// a step, operation or outcome that does not exist, or is of another kind of
// transaction.
var ErrBadEvent = errors.New("saga: bad event")

// Advance returns the state after ev happened. It takes txn.Replied, txn.Abort
// and the operator's txn.TryAgain, Skip, Complete, Fail and Abandon. A reply or
// abort that comes too late or twice leaves the state as it is, with no error.
// Each error returns s: ErrBadEvent for any event, txn.ErrIllegal for an
// operator's that [State.Permits] refuses.
//
// The new state keeps ev's Reply: don't write to it afterwards.
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
	case txn.Replied:
		return s.replied(d, ev)
	case txn.Abort:
		if !s.canTurnBack(d) {
			return s, nil
		}
		next := s.clone()
		next.turnBack(d, ev.Reason)
		next.settle(d)
		return next, nil
	case txn.TryAgain, txn.Skip, txn.Complete, txn.Fail, txn.Abandon:
		return s.operated(d, ev)
	}
	return s, fmt.Errorf("%w: a saga takes no %T", ErrBadEvent, ev)
}

func (s State) replied(d *Definition, ev txn.Replied) (State, error) {
	switch {
	case ev.Branch < 0 || ev.Branch >= len(s.Steps):
		return s, fmt.Errorf("%w: there is no step %d, want 0 to %d", ErrBadEvent, ev.Branch, len(s.Steps)-1)
	case ev.Op != txn.Do && ev.Op != txn.Undo:
		return s, fmt.Errorf("%w: a saga asks for no %s, want do or undo", ErrBadEvent, ev.Op)
	case !ev.Outcome.Valid():
		return s, fmt.Errorf("%w: %s is no outcome, want ok, refused or unknown", ErrBadEvent, ev.Outcome)
	}
	st := s.Steps[ev.Branch]
	if s.way(d).asks(st.Phase) != ev.Op {
		return s, nil
	}
	if ev.Outcome != txn.OK && ev.Attempt != st.Attempt {
		return s, nil
	}
	next := s.clone()
	switch ev.Outcome {
	case txn.OK:
		next.succeeded(ev)
	case txn.Refused:
		next.refused(d, ev)
	case txn.Unknown:
		next.unknown(d, ev)
	}
	next.settle(d)
	return next, nil
}

func (s State) clone() State {
	s.Steps = slices.Clone(s.Steps)
	return s
}

func (s *State) succeeded(ev txn.Replied) {
	st := &s.Steps[ev.Branch]
	st.Error = ""
	if ev.Op == txn.Undo {
		st.Phase = Undone
		return
	}
	st.done(ev.Reply)
}

func (st *StepState) done(reply []byte) {
	st.Phase, st.Reply, st.Error = Done, nil, ""
	if len(reply) > 0 { // empty and nil are the same once encoded
		st.Reply = reply
	}
}

func (s *State) refused(d *Definition, ev txn.Replied) {
	st := &s.Steps[ev.Branch]
	st.Error = clip(ev.Message)
	reason := txn.Reason{Branch: d.Steps[ev.Branch].Name, Code: txn.CodeRefused, Message: ev.Message}
	switch {
	case ev.Op == txn.Undo && d.Steps[ev.Branch].Kind == Pivot:
		s.goForward(ev)
	case ev.Op == txn.Undo:
		st.Phase = Stuck
	case s.canTurnBack(d):
		st.Phase = Refused
		s.turnBack(d, reason)
	default:
		st.Phase = Stuck
	}
}

func (s *State) unknown(d *Definition, ev txn.Replied) {
	st := &s.Steps[ev.Branch]
	st.Error = clip(ev.Message)
	if ev.Op == txn.Do && d.Steps[ev.Branch].Retry.Exhausted(st.Attempt) && s.canTurnBack(d) {
		s.turnBack(d, txn.Reason{
			Branch: d.Steps[ev.Branch].Name, Code: txn.CodeExhausted,
			Message: fmt.Sprintf("still unknown after attempt %d: %s", st.Attempt, ev.Message),
		})
		return
	}
	st.again()
}

// again asks for the next attempt. The count saturates rather than overflow.
func (st *StepState) again() { st.Attempt = min(st.Attempt+1, math.MaxInt32) }

// canTurnBack reports whether s may still be undone: it runs, and has not
// passed its pivot, if it has one.
func (s State) canTurnBack(d *Definition) bool {
	return s.Phase == txn.Running && !s.pivotPassed(d)
}

func (s *State) turnBack(d *Definition, why txn.Reason) {
	s.Phase = txn.RollingBack
	s.blame(why)
	s.undoPresumed(d)
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

// goForward takes back the decision to turn back: the pivot turned out to
// stand. Nothing else was undone yet, for the pivot is fenced first. What the
// retriable steps beside it answered meanwhile was not listened to, so they
// are asked again, and a refusal that had started it all is now stuck.
func (s *State) goForward(ev txn.Replied) {
	s.Phase, s.Cause = txn.Running, nil
	s.Steps[ev.Branch].done(ev.Reply)
	for i := range s.Steps {
		switch st := &s.Steps[i]; st.Phase {
		case Doing:
			st.again()
		case Refused:
			st.Phase = Stuck
		}
	}
}

// settle starts whatever can start now, and says where that leaves the run.
func (s *State) settle(d *Definition) {
	switch s.way(d) {
	case onward:
		s.settleForward(d)
	case back:
		s.settleBack(d)
	}
}

// settleForward walks from the first step to the last, so that a step is seen
// after everything that it comes after. A step that was skipped before its turn
// is passed only when its turn has come: what follows still waits for what is
// before it.
func (s *State) settleForward(d *Definition) {
	var passed set
	left, stuck := len(s.Steps), 0
	for i := range s.Steps {
		st := &s.Steps[i]
		ready := passed.hasAll(d.Steps[i].After)
		switch {
		case st.Phase == Stuck:
			stuck++
		case st.Phase == Pending && ready:
			st.Phase, st.Attempt, st.Presumed = Doing, 1, false
		case st.Phase.countsAsDone() && ready:
			passed.add(i)
			left--
		}
	}
	s.blameStuck(d)
	switch {
	case stuck > 0:
		s.Phase = txn.Parked
	case left == 0:
		s.Phase = txn.Committed
	default:
		s.Phase = txn.Running
	}
}

// blameStuck keeps the reason of a run that goes forward true: it is about a
// step that is stuck, and there is none when none is.
func (s *State) blameStuck(d *Definition) {
	first := -1
	for i := range s.Steps {
		if s.Steps[i].Phase != Stuck {
			continue
		}
		if s.Cause != nil && s.Cause.Branch == d.Steps[i].Name {
			return
		}
		if first < 0 {
			first = i
		}
	}
	s.Cause = nil
	if first >= 0 {
		s.blame(txn.Reason{Branch: d.Steps[first].Name, Code: txn.CodeRefused, Message: s.Steps[first].Error})
	}
}

// settleBack walks from the last step to the first, so that a step is seen
// after everything that depends on it.
func (s *State) settleBack(d *Definition) {
	var waits set // steps that something not yet undone depends on
	owed, stuck := 0, 0
	for i := len(s.Steps) - 1; i >= 0; i-- {
		st := &s.Steps[i]
		owes := st.owesUndo(d.Steps[i].Kind)
		if owes && !waits.has(i) && st.Phase != Undoing && st.Phase != Stuck {
			st.Phase, st.Attempt = Undoing, 1
		}
		if owes {
			owed++
		}
		if st.Phase == Stuck {
			stuck++
		}
		if owes || waits.has(i) {
			for _, a := range d.Steps[i].After {
				waits.add(a)
			}
		}
	}
	switch {
	case stuck > 0:
		s.Phase = txn.Parked
	case owed == 0:
		s.Phase = txn.RolledBack
	default:
		s.Phase = txn.RollingBack
	}
}

// owesUndo reports whether the step was started, can be undone and is not.
func (st *StepState) owesUndo(k Kind) bool {
	return k != Retriable && st.Attempt > 0 && st.Phase != Undone && st.Phase != UndoSkipped
}
