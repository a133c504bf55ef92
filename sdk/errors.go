package sdk

import (
	"errors"
	"fmt"

	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// The errors of the coordinator, for errors.Is. What is returned carries a
// message of its own; errors.As with a *CoordinatorError finds its details.
var (
	ErrNotFound          = amendsv1.ErrNotFound          // no such transaction; it never means rolled back
	ErrGIDConflict       = amendsv1.ErrGIDConflict       // the gid was started with other content
	ErrBranchConflict    = amendsv1.ErrBranchConflict    // the branch was tried with other content
	ErrInvalidGID        = amendsv1.ErrInvalidGID        // the gid is too long or holds a space or control character
	ErrInvalidDefinition = amendsv1.ErrInvalidDefinition // the saga cannot be honoured
	ErrInvalidArgument   = amendsv1.ErrInvalidArgument   // a label, timeout or other argument is not allowed
	ErrUnknownAction     = amendsv1.ErrUnknownAction     // the service is known and does not offer this action
	ErrTooLarge          = amendsv1.ErrTooLarge          // a payload is over the limit
	ErrOverloaded        = amendsv1.ErrOverloaded        // the coordinator is full; RetryAfter says when to try again
	ErrDecided           = amendsv1.ErrDecided           // the transaction is already decided
	ErrDeadlinePassed    = amendsv1.ErrDeadlinePassed    // the transaction's deadline has passed
	ErrWrongKind         = amendsv1.ErrWrongKind         // a saga was used as TCC, or the other way round
	ErrTryPending        = amendsv1.ErrTryPending        // a commit came before every try was answered
	ErrRefused           = amendsv1.ErrRefused           // a participant refused a try
	ErrRolledBack        = amendsv1.ErrRolledBack        // the transaction is undone everywhere
	ErrProtocolVersion   = amendsv1.ErrProtocolVersion   // coordinator and participant speak different versions
	ErrUnavailable       = amendsv1.ErrUnavailable       // the coordinator cannot serve this just now
	ErrNotOwner          = amendsv1.ErrNotOwner          // as ErrUnavailable: the member asked could not pass it on to the owner
	ErrUnauthenticated   = amendsv1.ErrUnauthenticated   // no credentials, or none that the coordinator believes
	ErrPermission        = amendsv1.ErrPermission        // the credentials have no role for this in the namespace
)

// ErrUnknown is what every *UnknownError is.
var ErrUnknown = errors.New("outcome unknown")

// ErrAbandoned is in an *UnknownError whose transaction an operator ended as it
// was: nothing drives it any more, and what took effect stays. Asking again will
// not help.
var ErrAbandoned = errors.New("an operator gave it up, effects may remain")

// CoordinatorError is an error that the coordinator sent.
type CoordinatorError = amendsv1.Error

// The codes of a RolledBackError, and CodeAbandoned, which stands in the text of
// ErrAbandoned's: a fixed set, safe as a metric label.
const (
	CodeRefused   = txn.CodeRefused   // a participant refused
	CodeExhausted = txn.CodeExhausted // a step's attempts were used up
	CodeDeadline  = txn.CodeDeadline  // the transaction's deadline passed
	CodeAborted   = txn.CodeAborted   // the caller or an operator asked for it
	CodeAbandoned = txn.CodeAbandoned // an operator ended it as it was
)

// RolledBackError says that a transaction is undone everywhere.
// errors.Is(err, ErrRolledBack) holds.
type RolledBackError struct {
	GID    string
	Step   string // the step or branch it turned back for; empty when it was none
	Code   string // one of the Code constants
	Reason string // for people; the participant's or the caller's own words
	Err    error  // what the function given to RunTCC returned; otherwise nil
}

// Error names the transaction, the step and the reason.
func (e *RolledBackError) Error() string {
	reason := txn.Reason{Branch: e.Step, Code: e.Code, Message: e.Reason}
	return fmt.Sprintf("sdk: transaction %q rolled back: %s", e.GID, reason)
}

// Unwrap returns ErrRolledBack and Err.
func (e *RolledBackError) Unwrap() []error { return unwrapped(ErrRolledBack, e.Err) }

// UnknownError says that nobody knows yet how a transaction ends, or that only
// a person can decide it: the caller's context ended first, the coordinator
// could not be asked, refused the credentials, does not know the gid, or has the
// transaction parked or abandoned (ErrAbandoned). errors.Is(err, ErrUnknown) holds.
type UnknownError struct {
	GID   string
	State txn.State // as last seen; zero when it never was
	Err   error     // why
}

// Error names the transaction, its last known state and the reason.
func (e *UnknownError) Error() string {
	seen := ""
	if e.State.Valid() {
		seen = fmt.Sprintf(" (last seen %s)", e.State)
	}
	return fmt.Sprintf("sdk: transaction %q: %v%s: %v", e.GID, ErrUnknown, seen, e.Err)
}

// Unwrap returns ErrUnknown and Err.
func (e *UnknownError) Unwrap() []error { return unwrapped(ErrUnknown, e.Err) }

func unwrapped(sentinel, cause error) []error {
	if cause == nil {
		return []error{sentinel}
	}
	return []error{sentinel, cause}
}

// RefusedError is a handler's refusal: the call did not take effect and will
// not. Make one with Refuse.
type RefusedError struct {
	Err error // why
}

// Refuse returns a *RefusedError. A handler that returns it (wrapped or not)
// turns the global transaction back, and err's text is the reason that whoever
// waits receives. Every other error of a handler means "ask again".
func Refuse(err error) error {
	if err == nil {
		err = errors.New("refused without a reason")
	}
	return &RefusedError{Err: err}
}

// Error is the text of the reason.
func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }
