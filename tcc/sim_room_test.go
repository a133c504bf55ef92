package tcc_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// room is one branch's participant: what its guard remembers and how it
// behaves.
type room struct {
	refuses, fails int  // chances in a hundred: of a try, and of any call
	stubborn       bool // a confirm or cancel of what is reserved is refused, for ever

	claimed bool // the guard: the try ran, or never will
	tomb    bool // it never will
	ran     int  // how often the try took effect
	reply   []byte
	end     txn.Op // Confirm or Cancel, once one of them ran

	// What an operator said, which the rules take as true.
	excused bool // the confirm or cancel was done by hand, or need not happen
	failed  bool // what is owed was refused by hand
}

func newRoom(rnd *rand.Rand) room {
	return room{
		refuses:  []int{0, 0, 0, 0, 10, 60}[rnd.IntN(6)],
		fails:    []int{0, 0, 20, 50}[rnd.IntN(4)],
		stubborn: rnd.IntN(20) == 0,
	}
}

// handle is what a participant does with a call, behind its guard.
func (s *sim) handle(c *txn.Call) (txn.Replied, error) {
	ev := txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt}
	if c.Op == txn.Check {
		s.answerCheck(&ev)
		return ev, nil
	}
	r := &s.rooms[c.Branch]
	var err error
	if c.Op == txn.Try {
		s.reserve(r, &ev)
	} else {
		err = s.end(r, &ev)
	}
	if s.fails(r) {
		ev.Outcome, ev.Message, ev.Reply = txn.Unknown, "failed on the way back", nil
	}
	s.log("  %s %s #%d runs: %s", c.Op, c.Name, c.Attempt, ev.Outcome)
	return ev, err
}

func (s *sim) reserve(r *room, ev *txn.Replied) {
	switch {
	case r.tomb:
		ev.Outcome, ev.Message = txn.Refused, "was cancelled before it ran"
	case r.claimed:
		ev.Outcome, ev.Reply = txn.OK, r.reply
	case s.rnd.IntN(100) < r.refuses:
		ev.Outcome, ev.Message = txn.Refused, "no"
	case s.fails(r):
		ev.Outcome, ev.Message = txn.Unknown, "failed before it ran"
	default:
		r.claimed = true
		r.ran++
		if s.rnd.IntN(3) > 0 {
			r.reply = fmt.Appendf(nil, "reply of %d", ev.Branch)
		}
		ev.Outcome, ev.Reply = txn.OK, r.reply
	}
}

// end confirms or cancels.
func (s *sim) end(r *room, ev *txn.Replied) error {
	decided := map[txn.Op]txn.State{txn.Confirm: txn.Committing, txn.Cancel: txn.RollingBack}[ev.Op]
	if s.state.Decision != decided {
		return fmt.Errorf("%s of branch %d, but the decision is %s", ev.Op, ev.Branch, s.state.Decision)
	}
	ev.Outcome = txn.OK
	switch {
	case r.end != 0 && r.end != ev.Op:
		return fmt.Errorf("%s of branch %d after its %s", ev.Op, ev.Branch, r.end)
	case r.end == ev.Op || r.tomb && ev.Op == txn.Cancel:
	case ev.Op == txn.Confirm && (!r.claimed || r.tomb):
		return fmt.Errorf("confirm of branch %d, which was never reserved", ev.Branch)
	case !r.claimed:
		r.claimed, r.tomb = true, true
	case r.stubborn:
		ev.Outcome, ev.Message = txn.Refused, "cannot"
	case s.fails(r):
		ev.Outcome, ev.Message = txn.Unknown, "failed before it ran"
	default:
		r.end = ev.Op
	}
	return nil
}

func (s *sim) fails(r *room) bool { return s.storm && s.rnd.IntN(100) < r.fails }

func (s *sim) checkTransition(was, is tcc.State) error {
	if err := is.Check(simDef); err != nil {
		return err
	}
	if was.Phase != is.Phase && !txn.Legal(was.Phase, is.Phase) {
		return fmt.Errorf("%s to %s is no legal transition", was.Phase, is.Phase)
	}
	if was.Decision != 0 && was.Decision != is.Decision {
		return errors.New("the decision was changed")
	}
	if was.Checking != nil && is.Checking == nil && is.Phase == was.Phase {
		return errors.New("the check was forgotten")
	}
	if len(is.Branches) < len(was.Branches) || was.Decision != 0 && len(is.Branches) != len(was.Branches) {
		return fmt.Errorf("%d branches became %d", len(was.Branches), len(is.Branches))
	}
	return nil
}

// checkEnd: everything everywhere, or nothing anywhere, or parked with nothing
// left that could be done.
func (s *sim) checkEnd() error {
	for i := range s.rooms {
		r := &s.rooms[i]
		registered := i < len(s.state.Branches)
		given := s.state.Phase == txn.Abandoned || r.excused // what is in place is an operator's to answer for
		stuck := registered && s.state.Branches[i].Phase == tcc.Stuck
		reserved := r.ran > 0 && r.end == 0
		switch {
		case r.ran > 1:
			return fmt.Errorf("branch %d took effect %d times", i, r.ran)
		case !registered && r.claimed:
			return fmt.Errorf("branch %d was called, but is not registered", i)
		case stuck && !given && (s.state.Phase != txn.Parked || !r.stubborn && !r.failed):
			return fmt.Errorf("branch %d is stuck, but was never refused", i)
		case reserved && !stuck && !given:
			return fmt.Errorf("%s, but branch %d is still reserved", s.state.Phase, i)
		case s.state.Phase == txn.Committed && registered && r.end != txn.Confirm && !given:
			return fmt.Errorf("committed, but branch %d is not confirmed", i)
		case s.state.Phase == txn.RolledBack && r.end == txn.Confirm:
			return fmt.Errorf("rolled back, but branch %d is confirmed", i)
		case r.end == 0 && registered && !r.tomb && !stuck && !given:
			return fmt.Errorf("%s, but branch %d has no end and no tombstone", s.state.Phase, i)
		case registered && s.state.Decision == txn.Committing && !bytes.Equal(s.state.Branches[i].Reply, r.reply):
			return fmt.Errorf("branch %d replied %q, the state says %q", i, r.reply, s.state.Branches[i].Reply)
		}
	}
	if err := s.work.agrees(s.state.Decision); err != nil {
		return err
	}
	if !s.state.Phase.Finished() && s.state.Phase != txn.Parked {
		return fmt.Errorf("waits for nothing, but is %s", s.state.Phase)
	}
	return nil
}
