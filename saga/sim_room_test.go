package saga_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// room is one step's participant: what its guard remembers and how it behaves.
type room struct {
	refuses, fails int  // chances in a hundred: of a do, and of a do or undo
	undoRefuses    bool // an undo of something that stands is refused, for ever

	claimed bool // the guard: the do ran, or never will
	tomb    bool // it never will
	undone  bool
	ran     int // how often the do took effect
	reply   []byte

	// What an operator said, which the rules take as true.
	byHand    bool   // the do was done by hand, with handReply
	skipped   bool   // the do need not happen
	excused   bool   // the undo was done by hand, or need not happen
	failed    bool   // what is owed was refused by hand
	handReply []byte // of a do that was done by hand
}

func newRoom(rnd *rand.Rand) room {
	return room{
		refuses:     []int{0, 0, 0, 0, 10, 60}[rnd.IntN(6)],
		fails:       []int{0, 0, 20, 50}[rnd.IntN(4)],
		undoRefuses: rnd.IntN(15) == 0,
	}
}

// stands reports whether the step's effect is in place.
func (r *room) stands() bool { return r.ran > 0 && !r.undone }

// holds reports whether what comes after the step may rely on it.
func (r *room) holds() bool { return r.stands() || r.byHand || r.skipped }

// remains reports whether an effect is in place that is to be undone.
func (r *room) remains() bool {
	return !r.excused && (r.stands() || r.byHand && !r.tomb && !r.undone)
}

// handle is what a participant does with a call, behind its guard.
func (s *sim) handle(c *txn.Call) (txn.Replied, error) {
	ev := txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt}
	var err error
	if c.Op == txn.Do {
		err = s.do(c.Branch, &ev)
	} else {
		err = s.undo(c.Branch, &ev)
	}
	s.log("  %s %s #%d runs: %s", c.Op, c.Name, c.Attempt, ev.Outcome)
	return ev, err
}

func (s *sim) do(i int, ev *txn.Replied) error {
	r := &s.rooms[i]
	switch {
	case r.tomb:
		ev.Outcome, ev.Message = txn.Refused, "was undone before it ran"
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
			r.reply = fmt.Appendf(nil, "reply of %d", i)
		}
		ev.Outcome, ev.Reply = txn.OK, r.reply
		if s.fails(r) {
			ev.Outcome, ev.Message, ev.Reply = txn.Unknown, "failed after it ran", nil
		}
		return s.checkEffect(i)
	}
	return nil
}

func (s *sim) undo(i int, ev *txn.Replied) error {
	r := &s.rooms[i]
	kind := s.def.Steps[i].Kind
	switch {
	case kind == saga.Retriable:
		return fmt.Errorf("undo of the retriable step %d", i)
	case !r.claimed:
		r.claimed, r.tomb = true, true
		ev.Outcome = txn.OK
	case r.tomb || r.undone:
		ev.Outcome = txn.OK
	case kind == saga.Pivot:
		ev.Outcome, ev.Reply, ev.Message = txn.Refused, r.reply, "it took effect"
	case r.undoRefuses:
		ev.Outcome, ev.Message = txn.Refused, "cannot be undone"
	case s.fails(r):
		ev.Outcome, ev.Message = txn.Unknown, "failed before it was undone"
	default:
		r.undone = true
		ev.Outcome = txn.OK
	}
	if ev.Outcome == txn.OK {
		if err := s.checkUndo(i); err != nil {
			return err
		}
	}
	if s.fails(r) {
		ev.Outcome, ev.Message, ev.Reply = txn.Unknown, "failed on the way back", nil
	}
	return nil
}

func (s *sim) fails(r *room) bool { return s.storm && s.rnd.IntN(100) < r.fails }
