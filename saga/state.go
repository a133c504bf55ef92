package saga

import (
	"fmt"
	"math/bits"

	"github.com/amends-dev/amends/saga/txn"
)

// StepPhase says how far a step has come.
type StepPhase uint8

// The phases of a step.
const (
	Pending     StepPhase = iota // not started: waits for the steps that it comes after
	Doing                        // started: its outcome is not known
	Done                         // took effect
	Refused                      // retriable steps only: did not take effect, and the saga turns back
	Undoing                      // its undo is owed
	Undone                       // does not stand, and never will
	Stuck                        // refused what is owed: only a person can decide
	Skipped                      // counts as done: an operator's word; never called when its attempt is 0
	UndoSkipped                  // counts as undone: an operator's word; its effect may remain
)

var phaseNames = [...]string{
	"PENDING", "DOING", "DONE", "REFUSED", "UNDOING", "UNDONE", "STUCK", "SKIPPED", "UNDO_SKIPPED",
}

// String returns the upper-case name, for example "UNDOING".
func (p StepPhase) String() string {
	if p.Valid() {
		return phaseNames[p]
	}
	return fmt.Sprintf("PHASE(%d)", uint8(p))
}

// Valid reports whether p is one of the phases above.
func (p StepPhase) Valid() bool { return int(p) < len(phaseNames) }

// MarshalText returns the name. It refuses a phase that is not valid.
func (p StepPhase) MarshalText() ([]byte, error) {
	if !p.Valid() {
		return nil, fmt.Errorf("saga: unknown step phase %d", uint8(p))
	}
	return []byte(phaseNames[p]), nil
}

// UnmarshalText is the inverse of MarshalText. It accepts nothing else.
func (p *StepPhase) UnmarshalText(text []byte) error {
	for i, name := range phaseNames {
		if name == string(text) {
			*p = StepPhase(i)
			return nil
		}
	}
	return fmt.Errorf("saga: unknown step phase %q (want one of %q)", text, phaseNames)
}

// StepState is how far one step has come.
type StepState struct {
	Phase   StepPhase `json:"phase,omitempty"`
	Attempt int       `json:"attempt,omitempty"` // of the operation that it is in, from 1; 0 when never called
	Reply   []byte    `json:"reply,omitempty"`   // what its action or an operator answered; nil until it is done
	Error   string    `json:"error,omitempty"`   // the last refusal or failure, at most MaxError bytes; an OK clears it

	Presumed bool `json:"-"` // PENDING, but may have been called: see State.Presume
}

// State is how far a run has come. It is a value: Advance returns another one
// and never changes the one it was called on. Its slices are shared between
// the two, so don't write to them.
type State struct {
	Phase txn.State
	Steps []StepState // as long as the definition's
	Cause *txn.Reason // why it turned back, is parked or was abandoned; nil when neither
}

// New returns the state of a run that has just begun: the steps that wait for
// nothing are under way. The definition must be valid.
func New(d *Definition) State {
	s := State{Phase: txn.Running, Steps: make([]StepState, len(d.Steps))}
	s.settle(d)
	return s
}

// Outstanding returns what s waits for, in the order of the steps; nothing
// when s is finished, or parked with nothing left to do. It is a function of
// its arguments. The calls share their bytes with d and s.
func (s State) Outstanding(d *Definition) []txn.Call {
	way := s.way(d)
	n, last := 0, 0
	for i := range s.Steps {
		if way.asks(s.Steps[i].Phase) != 0 {
			n, last = n+1, i
		}
	}
	if n == 0 {
		return nil
	}
	calls := make([]txn.Call, 0, n)
	before := d.ancestors(last + 1)
	for i := range before {
		op := way.asks(s.Steps[i].Phase)
		if op == 0 {
			continue
		}
		st := &d.Steps[i]
		calls = append(calls, txn.Call{
			Branch: i, Name: st.Name, Action: st.Action, Op: op, Attempt: s.Steps[i].Attempt,
			Payload: st.Payload, Replies: s.replies(d, &before[i]), Retry: st.Retry,
		})
	}
	return calls
}

// replies collects the replies of the given steps that are not empty.
func (s State) replies(d *Definition, of *set) []txn.Reply {
	n := 0
	for _, word := range of {
		n += bits.OnesCount64(word)
	}
	if n == 0 {
		return nil
	}
	replies := make([]txn.Reply, 0, n)
	for w, word := range of {
		for ; word != 0; word &= word - 1 {
			i := w*64 + bits.TrailingZeros64(word)
			if body := s.Steps[i].Reply; len(body) > 0 {
				replies = append(replies, txn.Reply{Branch: d.Steps[i].Name, Action: d.Steps[i].Action, Body: body})
			}
		}
	}
	if len(replies) == 0 {
		return nil
	}
	return replies
}

// way is the direction that a run takes.
type way uint8

const (
	halted way = iota // finished
	onward            // does steps
	back              // undoes them
)

// way tells where s is heading. A parked run still does what else there is to
// do: forward when it has passed its pivot, for then it never turns back.
func (s State) way(d *Definition) way {
	switch s.Phase {
	case txn.Running:
		return onward
	case txn.RollingBack:
		return back
	case txn.Parked:
		if s.pivotPassed(d) {
			return onward
		}
		return back
	}
	return halted
}

// asks returns the operation that a run on its way w waits for at a step in
// phase p, 0 when it waits for none. A retriable step that is under way when
// the run turns back is not waited for: there is nothing to undo.
func (w way) asks(p StepPhase) txn.Op {
	switch {
	case w == onward && p == Doing:
		return txn.Do
	case w == back && p == Undoing:
		return txn.Undo
	}
	return 0
}

// TurnedBack reports whether s was decided to be undone: it is being undone, it
// is undone, or it is parked on the way.
func (s State) TurnedBack(d *Definition) bool { return s.Phase == txn.RolledBack || s.way(d) == back }

// pivotPassed reports whether s has passed the point of no return: the pivot is
// done, or was skipped and everything before it counts as done.
func (s State) pivotPassed(d *Definition) bool {
	p := d.pivot()
	if p < 0 || s.Steps[p].Phase != Skipped {
		return p >= 0 && s.Steps[p].Phase == Done
	}
	before := d.ancestors(p + 1)[p]
	for i := range p {
		if before.has(i) && !s.Steps[i].Phase.countsAsDone() {
			return false
		}
	}
	return true
}

// countsAsDone reports whether what comes after a step in phase p need not wait
// for it.
func (p StepPhase) countsAsDone() bool { return p == Done || p == Skipped }
