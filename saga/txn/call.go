package txn

import "fmt"

// Op is what a call asks of a participant.
type Op uint8

// The operations. Do and Undo belong to sagas; Try, Confirm, Cancel and Check to
// TCC.
const (
	Do      Op = 1
	Undo    Op = 2
	Try     Op = 3
	Confirm Op = 4
	Cancel  Op = 5
	Check   Op = 6 // did the application's own work commit? Of the whole, not of a branch
)

var opNames = [...]string{Do: "do", Undo: "undo", Try: "try", Confirm: "confirm", Cancel: "cancel", Check: "check"}

// String returns the lower-case name, for example "undo".
func (o Op) String() string {
	if o.Valid() {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Valid reports whether o is one of the operations above.
func (o Op) Valid() bool { return o >= Do && o <= Check }

// Outcome is how a call ended. There are three, and any handler error that is
// not an explicit refusal is Unknown.
type Outcome uint8

// The outcomes of a call.
const (
	OK      Outcome = 1 // took effect (now, or when it was delivered before)
	Refused Outcome = 2 // did not take effect and will not: turn back
	Unknown Outcome = 3 // may or may not have taken effect: ask again
)

var outcomeNames = [...]string{OK: "ok", Refused: "refused", Unknown: "unknown"}

// String returns the lower-case name, for example "refused".
func (o Outcome) String() string {
	if o.Valid() {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Valid reports whether o is one of the outcomes above.
func (o Outcome) Valid() bool { return o >= OK && o <= Unknown }

// Call is something that a transaction waits for: one operation of one branch.
// A transaction's calls are a function of its state, so that whoever loads the
// state after a crash asks for exactly the same.
type Call struct {
	Branch  int     // index of the saga's step or of the TCC branch; All of a Check
	Name    string  // its name, unique within the transaction; empty of a Check
	Action  string  // for example "accounts.debit"; the service is what stands before the last dot
	Op      Op      // what is asked
	Attempt int     // counts from 1 for each operation of each branch
	Payload []byte  // the encoded request
	Replies []Reply // what the steps before it answered, in the order of their indices
	Retry   Retry   // when it is tried again
}

// Reply is what an earlier step answered.
type Reply struct {
	Branch string // the step's name
	Action string // the step's action
	Body   []byte // the encoded reply
}

// Reason says why something turned back, was refused or was parked.
type Reason struct {
	Branch  string `json:"branch,omitempty"`  // the step or branch, empty when it was none of them
	Code    string `json:"code"`              // one of the Code constants
	Message string `json:"message,omitempty"` // for people; the participant's or operator's own words
}

// The codes of a Reason: a fixed set, safe as a metric label.
const (
	CodeRefused   = "REFUSED"            // a participant refused the call
	CodeExhausted = "ATTEMPTS_EXHAUSTED" // the outcome stayed unknown for every attempt allowed
	CodeDeadline  = "DEADLINE_EXCEEDED"  // the transaction's deadline passed
	CodeAborted   = "ABORTED"            // the caller or an operator asked for it
	CodeAbandoned = "ABANDONED"          // an operator ended it as it was
)

// String joins the parts for people: `step "debit": REFUSED: no money`.
func (r Reason) String() string {
	s := r.Code
	if r.Branch != "" {
		s = fmt.Sprintf("step %q: %s", r.Branch, r.Code)
	}
	if r.Message != "" {
		s += ": " + r.Message
	}
	return s
}

// Event is something that happened to a transaction. Both machines take
// Replied, Abort and the operator's TryAgain, Skip, Complete, Fail and Abandon;
// package tcc adds events of its own.
type Event interface {
	// EventType names the event in the audit trail, for example "replied".
	EventType() string
}

// Replied says how a call ended. An OK counts whichever attempt it answers;
// Refused and Unknown count only for the attempt that the transaction waits
// for.
type Replied struct {
	Branch  int
	Op      Op
	Attempt int
	Outcome Outcome
	Reply   []byte // of an OK, and of an undo refused because the step stands: what it replied
	Message string // of a Refused or Unknown: the error, for people
}

// EventType returns "replied".
func (Replied) EventType() string { return "replied" }

// Abort asks a transaction to turn back. One that can no longer turn back, or
// already does, stays as it is.
type Abort struct {
	Reason Reason
}

// EventType returns "abort".
func (Abort) EventType() string { return "abort" }
