package txn

import "fmt"

// State is where a global transaction stands. Sagas and TCC transactions share
// one set. The numbers are stored and sent: they never change their meaning.
type State uint8

// The states of a global transaction. PAUSED is not among them: it is a flag
// beside the state.
const (
	Running     State = 1 // forward: a saga's steps, a transaction's tries
	Committing  State = 2 // TCC only: decided to commit, confirms are owed
	RollingBack State = 3 // decided to turn back, undos or cancels are owed
	Committed   State = 4 // the end: every effect is in place
	RolledBack  State = 5 // the end: every effect is undone
	Parked      State = 6 // only a person can decide how it goes on
	Abandoned   State = 7 // the end, forced by an operator: effects may remain
)

var stateNames = [...]string{
	Running: "RUNNING", Committing: "COMMITTING", RollingBack: "ROLLING_BACK",
	Committed: "COMMITTED", RolledBack: "ROLLED_BACK", Parked: "PARKED", Abandoned: "ABANDONED",
}

// String returns the name used in logs, audit events and filters, for example
// "ROLLING_BACK".
func (s State) String() string {
	if s.Valid() {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE(%d)", uint8(s))
}

// Valid reports whether s is one of the states above.
func (s State) Valid() bool { return s >= Running && s <= Abandoned }

// Finished reports whether s is an end: nothing will ever happen again.
func (s State) Finished() bool { return s == Committed || s == RolledBack || s == Abandoned }

// ParseState is the inverse of String. It accepts nothing else.
func ParseState(name string) (State, error) {
	for s := Running; s <= Abandoned; s++ {
		if stateNames[s] == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("txn: unknown state %q (want one of %v)", name, stateNames[Running:])
}

// Legal reports whether a transaction may go from one state to another in one
// transition. Staying is always legal for a transaction that has not finished.
//
// RollingBack to Running, or to Committed when nothing is left to do, happens
// only to a saga whose pivot turned out to have taken effect after all: it can
// no longer turn back, so it goes forward.
func Legal(from, to State) bool {
	if from.Finished() {
		return false
	}
	if from == to {
		return true
	}
	switch from {
	case Running:
		return to != Running
	case Committing:
		return to == Committed || to == Parked || to == Abandoned
	case RollingBack:
		return to != Committing
	case Parked:
		return true
	}
	return false
}
