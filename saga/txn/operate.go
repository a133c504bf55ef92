package txn

import (
	"errors"
	"fmt"
	"strings"
)

// ErrIllegal is what every refusal of an operator's event wraps: it is well
// formed, but not legal in the state that the transaction is in. The error's
// text says why, and what would be legal now.
var ErrIllegal = errors.New("txn: illegal now")

// All stands for every branch, in TryAgain.Branch and where a machine is asked
// about the transaction as a whole.
const All = -1

// TryAgain asks again for what a participant refused although it is owed: the
// STUCK branch, or with All every one of them, goes back to the operation that
// it was stuck in, as its next attempt. A branch that is asked for anyway stays
// as it is: when its next attempt goes out is the coordinator's.
type TryAgain struct {
	Branch int // index, or All
}

// EventType returns "retry".
func (TryAgain) EventType() string { return "retry" }

// Skip says that what the branch owes now need not happen. A step to be done
// counts as done, with no reply; if it was ever called it is still undone when
// the saga turns back, because the call may have taken effect. An undo, confirm
// or cancel counts as answered: effects may remain.
type Skip struct {
	Branch int
}

// EventType returns "skip".
func (Skip) EventType() string { return "skip" }

// Complete says that a person did what the branch owes now: did it, undid it,
// confirmed or cancelled it. With All it is their answer to a TCC transaction's
// check: the application's own work did commit.
type Complete struct {
	Branch int    // index, or All
	Reply  []byte // of a step that was done; an undo, confirm or cancel has none, and it is ignored
}

// EventType returns "complete".
func (Complete) EventType() string { return "complete" }

// Fail does as though the participant had refused what the branch owes now:
// the transaction turns back, or is parked where it cannot. Of a pivot's undo
// it says that the pivot stands, and the saga goes forward with no reply of it.
type Fail struct {
	Branch  int
	Message string // for people
}

// EventType returns "fail".
func (Fail) EventType() string { return "fail" }

// Abandon ends a transaction as it is: nothing is asked of a participant any
// more, and effects may remain.
type Abandon struct {
	Reason Reason // its Code is CodeAbandoned when empty
}

// EventType returns "abandon".
func (Abandon) EventType() string { return "abandon" }

// Target returns the branch that an operator's event is about, and its verb.
func Target(ev Event) (branch int, v Verb) {
	switch ev := ev.(type) {
	case TryAgain:
		return ev.Branch, VerbRetry
	case Skip:
		return ev.Branch, VerbSkip
	case Complete:
		return ev.Branch, VerbComplete
	case Fail:
		return ev.Branch, VerbFail
	}
	return All, VerbAbandon
}

// Verb is what an operator may do about a transaction or one of its branches.
type Verb uint8

// The verbs, each with its event. Retry is about a branch or all of them; Skip,
// Complete and Fail are about a branch, and Complete about a check, too; Abort
// and Abandon about the whole.
const (
	VerbRetry    Verb = 1 // TryAgain
	VerbSkip     Verb = 2 // Skip
	VerbComplete Verb = 3 // Complete
	VerbFail     Verb = 4 // Fail
	VerbAbort    Verb = 5 // Abort
	VerbAbandon  Verb = 6 // Abandon
)

var verbNames = [...]string{VerbRetry: "retry", VerbSkip: "skip", VerbComplete: "complete", VerbFail: "fail",
	VerbAbort: "abort", VerbAbandon: "abandon"}

// String returns the lower-case name, for example "skip".
func (v Verb) String() string {
	if v.Valid() {
		return verbNames[v]
	}
	return fmt.Sprintf("verb(%d)", uint8(v))
}

// Valid reports whether v is one of the verbs above.
func (v Verb) Valid() bool { return v >= VerbRetry && v <= VerbAbandon }

// Whole reports whether v can only be about a transaction as a whole.
func (v Verb) Whole() bool { return v == VerbAbort || v == VerbAbandon }

// Illegal returns an ErrIllegal: why something is refused, and the verbs that
// are legal now, if any.
func Illegal(why string, legal []Verb) error {
	if len(legal) == 0 {
		return fmt.Errorf("%w: %s", ErrIllegal, why)
	}
	names := make([]string, len(legal))
	for i, v := range legal {
		names[i] = v.String()
	}
	return fmt.Errorf("%w: %s; legal now: %s", ErrIllegal, why, strings.Join(names, ", "))
}
