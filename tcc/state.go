package tcc

import "github.com/amends-dev/amends/saga/txn"

// State is how far a transaction has come. It is a value: Advance returns
// another one and never changes the one it was called on. Its slices are
// shared between the two, so don't write to them.
type State struct {
	Phase    txn.State
	Decision txn.State     // Committing or RollingBack once it is decided, and for ever; 0 before
	Branches []BranchState // in the order in which they were registered
	Cause    *txn.Reason   // why it turned back, is parked or was abandoned; nil when neither
	Checking *Checking     // its deadline has passed and its check is asked; nil when not, and once it is decided
}

// Checking is how far the question has come whether the application's own work
// committed.
type Checking struct {
	Attempt int    `json:"attempt"`         // from 1
	Error   string `json:"error,omitempty"` // the last failure, at most MaxError bytes
}

// New returns the state of a transaction that has just begun, with no branch.
func New(_ *Definition) State { return State{Phase: txn.Running} }

// Outstanding returns what s waits for, in the order of the branches; nothing
// when s is finished, waits for its decision, or is parked with nothing left
// to do. A check is asked alone. It is a function of its arguments. The calls share their bytes with s.
func (s State) Outstanding(d *Definition) []txn.Call {
	if s.Phase.Finished() {
		return nil
	}
	if s.Checking != nil { // every branch is TRIED
		return []txn.Call{{
			Branch: txn.All, Action: d.Check.Action, Op: txn.Check, Attempt: s.Checking.Attempt, Retry: d.Check.Retry,
		}}
	}
	var calls []txn.Call
	for i := range s.Branches {
		b := &s.Branches[i]
		op := b.Phase.asks()
		if op == 0 {
			continue
		}
		if calls == nil {
			calls = make([]txn.Call, 0, len(s.Branches)-i)
		}
		calls = append(calls, txn.Call{
			Branch: i, Name: b.Name, Action: b.Action, Op: op, Attempt: b.Attempt,
			Payload: b.Payload, Retry: b.Retry,
		})
	}
	return calls
}

// Find returns the index of the branch with that name, -1 when there is none.
func (s State) Find(name string) int {
	for i := range s.Branches {
		if s.Branches[i].Name == name {
			return i
		}
	}
	return -1
}

// asks returns the operation that a branch in phase p waits for, 0 for none.
func (p BranchPhase) asks() txn.Op {
	switch p {
	case Trying:
		return txn.Try
	case Confirming:
		return txn.Confirm
	case Cancelling:
		return txn.Cancel
	}
	return 0
}
