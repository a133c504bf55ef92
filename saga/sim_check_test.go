package saga_test

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// The rules, told from the participants' side: they look at the rooms, and at
// the state only to compare.

func (s *sim) pivot() int {
	for i, st := range s.def.Steps {
		if st.Kind == saga.Pivot {
			return i
		}
	}
	return -1
}

// onward reports whether the saga can no longer turn back.
func (s *sim) onward() bool { return s.passedPivot(s.state) }

// passedPivot: the pivot and everything before it counts as done.
func (s *sim) passedPivot(state saga.State) bool {
	p := s.pivot()
	for i := range state.Steps {
		phase := state.Steps[i].Phase
		if p >= 0 && (i == p || s.before[p][i]) && phase != saga.Done && phase != saga.Skipped {
			return false
		}
	}
	return p >= 0
}

// checkCall: a step is asked for when everything before it stands, within its
// attempts, with the replies that were given.
func (s *sim) checkCall(c *txn.Call) error {
	st := s.def.Steps[c.Branch]
	var replies []txn.Reply
	for j := range s.def.Steps {
		if !s.before[c.Branch][j] {
			continue
		}
		if c.Op == txn.Do && !s.rooms[j].holds() {
			return fmt.Errorf("do of step %d is asked for, but step %d before it does not stand", c.Branch, j)
		}
		body := s.rooms[j].reply
		if s.rooms[j].byHand {
			body = s.rooms[j].handReply
		}
		if len(body) > 0 && s.state.Steps[j].Phase == saga.Done {
			replies = append(replies, txn.Reply{Branch: s.def.Steps[j].Name, Action: s.def.Steps[j].Action, Body: body})
		}
	}
	if !reflect.DeepEqual(c.Replies, replies) {
		return fmt.Errorf("%s of step %d carries %v, want %v", c.Op, c.Branch, c.Replies, replies)
	}
	if max := st.Retry.Attempts; c.Op == txn.Do && max > 0 && c.Attempt > max && !s.onward() {
		return fmt.Errorf("do of step %d is tried a %d. time, %d are allowed", c.Branch, c.Attempt, max)
	}
	if c.Name != st.Name || c.Action != st.Action || !reflect.DeepEqual(c.Payload, st.Payload) {
		return fmt.Errorf("call %+v is not about step %+v", c, st)
	}
	return nil
}

// checkEffect: when a step takes effect, everything before it stands. A
// retriable step may be late: there is nothing to undo about it. So may one
// that an operator answers for.
func (s *sim) checkEffect(i int) error {
	if s.state.Phase == txn.Abandoned || s.rooms[i].excused {
		return nil
	}
	for j, before := range s.before[i] {
		if before && !s.rooms[j].holds() && s.def.Steps[i].Kind != saga.Retriable {
			return fmt.Errorf("step %d took effect, but step %d before it does not stand", i, j)
		}
	}
	return nil
}

// checkUndo: when a step is undone, nothing that depends on it stands.
func (s *sim) checkUndo(i int) error {
	for j := range s.rooms {
		if s.before[j][i] && s.rooms[j].remains() && s.def.Steps[j].Kind != saga.Retriable {
			return fmt.Errorf("step %d is undone, but step %d that depends on it stands", i, j)
		}
	}
	return nil
}

// learn notes the reasons to turn back that an event gave.
func (s *sim) learn(was saga.State, ev txn.Event) {
	if _, failed := ev.(txn.Fail); failed {
		s.reasons[txn.CodeRefused] = true
	}
	r, ok := ev.(txn.Replied)
	if !ok || r.Op != txn.Do || was.Steps[r.Branch].Attempt != r.Attempt {
		return
	}
	if r.Outcome == txn.Refused {
		s.reasons[txn.CodeRefused] = true
	}
	if r.Outcome == txn.Unknown && s.def.Steps[r.Branch].Retry.Exhausted(r.Attempt) {
		s.reasons[txn.CodeExhausted] = true
	}
}

func (s *sim) checkTransition(was, is saga.State) error {
	if err := is.Check(s.def); err != nil {
		return err
	}
	forward := was.Phase == txn.RollingBack && (is.Phase == txn.Running || is.Phase == txn.Committed || s.onward())
	if forward {
		if s.fenced {
			return errors.New("went forward again twice")
		}
		s.fenced = true
		if !s.onward() || !s.rooms[s.pivot()].stands() && !s.rooms[s.pivot()].byHand {
			return errors.New("went forward again, but the pivot does not stand")
		}
	}
	same := reflect.DeepEqual(was, is)
	if !same && !txn.Legal(was.Phase, is.Phase) && !(forward && is.Phase == txn.Committed) {
		return fmt.Errorf("%s to %s is no legal transition", was.Phase, is.Phase)
	}
	if s.passedPivot(was) && !s.passedPivot(is) {
		return errors.New("the pivot was passed, and is no longer")
	}
	return nil
}

// checkEnd: everything everywhere, or nothing anywhere, or parked with nothing
// left that could be done.
func (s *sim) checkEnd() error {
	for i := range s.rooms {
		if s.rooms[i].ran > 1 {
			return fmt.Errorf("step %d took effect %d times", i, s.rooms[i].ran)
		}
	}
	switch s.state.Phase {
	case txn.Committed:
		for i := range s.rooms {
			if !s.rooms[i].holds() {
				return fmt.Errorf("committed, but step %d does not stand", i)
			}
		}
		return nil
	case txn.RolledBack:
		for i := range s.rooms {
			if s.rooms[i].remains() && s.def.Steps[i].Kind != saga.Retriable {
				return fmt.Errorf("rolled back, but step %d stands", i)
			}
		}
		if !s.reasons[s.state.Cause.Code] {
			return fmt.Errorf("rolled back because of %s, which never happened: %v", s.state.Cause, s.reasons)
		}
		return nil
	case txn.Abandoned:
		if s.state.Cause == nil || s.state.Cause.Code != txn.CodeAbandoned {
			return fmt.Errorf("abandoned because of %v", s.state.Cause)
		}
		return nil
	case txn.Parked:
		if s.onward() {
			return s.checkParkedOnward()
		}
		return s.checkParkedBack()
	}
	return fmt.Errorf("waits for nothing, but is %s", s.state.Phase)
}

func (s *sim) stuckRelative(i int, related func(i, j int) bool) bool {
	for j := range s.state.Steps {
		if s.state.Steps[j].Phase == saga.Stuck && (i == j || related(i, j)) {
			return true
		}
	}
	return false
}

func (s *sim) checkParkedOnward() error {
	for i := range s.rooms {
		if !s.rooms[i].holds() && !s.stuckRelative(i, func(i, j int) bool { return s.before[i][j] }) {
			return fmt.Errorf("parked after the pivot, but step %d was free to go on", i)
		}
		if s.state.Steps[i].Phase == saga.Stuck && s.def.Steps[i].Kind != saga.Retriable {
			return fmt.Errorf("parked after the pivot on step %d, which is %s", i, s.def.Steps[i].Kind)
		}
	}
	return nil
}

func (s *sim) checkParkedBack() error {
	for i := range s.rooms {
		stands := s.rooms[i].remains() && s.def.Steps[i].Kind != saga.Retriable
		if stands && !s.stuckRelative(i, func(i, j int) bool { return s.before[j][i] }) {
			return fmt.Errorf("parked on the way back, but step %d was free to be undone", i)
		}
		if s.state.Steps[i].Phase == saga.Stuck && !s.rooms[i].undoRefuses && !s.rooms[i].failed {
			return fmt.Errorf("step %d is stuck, but was never refused", i)
		}
	}
	return nil
}
