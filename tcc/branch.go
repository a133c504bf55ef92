package tcc

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/amends-dev/amends/saga/txn"
)

// ErrInvalidBranch is what every error about the content of a branch wraps.
var ErrInvalidBranch = errors.New("tcc: invalid branch")

// Branch is one reservation: an action of a participant with its request.
type Branch struct {
	Name    string `json:"name"`              // unique within the transaction
	Action  string `json:"action"`            // "service.verb", for example "flights.seat"
	Payload []byte `json:"payload,omitempty"` // the encoded request; try, confirm and cancel all receive it
	Retry   Retry  `json:"retry,omitzero"`    // when a call is tried again; Attempts bounds only the try
}

// Validate reports every mistake in b, joined, each naming the field. The
// error wraps ErrInvalidBranch.
func (b *Branch) Validate() error {
	err := errors.Join(
		txn.CheckName("name", b.Name),
		txn.CheckAction("action", b.Action),
		b.Retry.Validate(),
	)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w %q: %w", ErrInvalidBranch, b.Name, err)
}

// equal reports whether a and b ask for the same.
func (b *Branch) equal(other *Branch) bool {
	return b.Name == other.Name && b.Action == other.Action &&
		bytes.Equal(b.Payload, other.Payload) && b.Retry == other.Retry
}

// BranchPhase says how far a branch has come.
type BranchPhase uint8

// The phases of a branch. A refused try has no phase of its own: it turns the
// transaction back at once, and its branch is cancelled with the others.
const (
	Trying     BranchPhase = iota + 1 // registered: the try's outcome is not known
	Tried                             // reserved
	Confirming                        // its confirm is owed
	Confirmed                         // took effect
	Cancelling                        // its cancel is owed
	Cancelled                         // does not stand, and never will
	Stuck                             // refused what is owed: only a person can decide
	Skipped                           // counts as confirmed or cancelled: an operator's word; effects may remain
)

var phaseNames = [...]string{
	Trying: "TRYING", Tried: "TRIED", Confirming: "CONFIRMING", Confirmed: "CONFIRMED",
	Cancelling: "CANCELLING", Cancelled: "CANCELLED", Stuck: "STUCK", Skipped: "SKIPPED",
}

// String returns the upper-case name, for example "CANCELLING".
func (p BranchPhase) String() string {
	if p.Valid() {
		return phaseNames[p]
	}
	return fmt.Sprintf("PHASE(%d)", uint8(p))
}

// Valid reports whether p is one of the phases above.
func (p BranchPhase) Valid() bool { return p >= Trying && p <= Skipped }

// MarshalText returns the name. It refuses a phase that is not valid.
func (p BranchPhase) MarshalText() ([]byte, error) {
	if !p.Valid() {
		return nil, fmt.Errorf("tcc: unknown branch phase %d", uint8(p))
	}
	return []byte(phaseNames[p]), nil
}

// UnmarshalText is the inverse of MarshalText. It accepts nothing else.
func (p *BranchPhase) UnmarshalText(text []byte) error {
	for i := Trying; i <= Skipped; i++ {
		if phaseNames[i] == string(text) {
			*p = i
			return nil
		}
	}
	return fmt.Errorf("tcc: unknown branch phase %q (want one of %q)", text, phaseNames[Trying:])
}

// BranchState is a branch and how far it has come.
type BranchState struct {
	Branch
	Phase   BranchPhase `json:"phase"`
	Attempt int         `json:"attempt"`         // of the operation that it is in, from 1
	Reply   []byte      `json:"reply,omitempty"` // what its try answered; nil until it is tried
	Error   string      `json:"error,omitempty"` // the last refusal or failure, at most MaxError bytes; an OK clears it
}
