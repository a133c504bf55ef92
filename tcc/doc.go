// Package tcc describes try-confirm-cancel transactions and decides what they
// do next.
//
// A TCC transaction reserves first: each branch is tried, which sets something
// aside at a participant. Then it is decided, once: commit confirms every
// branch, and abort (or a refused try, or the deadline) cancels every branch.
// Branches are tried in any order, one after the other or in parallel, while
// the transaction is open.
//
// The package is pure: plain data and functions, with no I/O, goroutine, clock
// or randomness. What a transaction waits for is a function of its [State], so
// recovery after a crash is the ordinary path:
//
//	s := tcc.New(def)
//	s, err = s.Advance(def, tcc.Try{Branch: seat})
//	for _, call := range s.Outstanding(def) { … ask the participant … }
//	s, err = s.Advance(def, reply)
//	s, err = s.Advance(def, tcc.Commit{})
//
// # Rules
//
// An OK counts whichever attempt it answers; Refused and Unknown count only
// for the current attempt. A try that is refused, or whose attempts are
// exhausted, turns the whole transaction back at once. Every branch that was
// ever registered is then cancelled, in parallel, even the one that refused
// and those whose outcome is unknown, because an earlier delivery of the try
// may still take effect: the participant's guard answers the cancel of a try
// that never ran with OK and makes sure that it never will.
//
// Confirms and cancels are owed: they are retried without bound, and a
// participant that refuses one parks the transaction.
//
// # Check-back
//
// A definition may name a check: an action that tells whether the application's
// own work, which no branch does, committed. Then the deadline does not cancel.
// An undecided transaction asks the check: OK commits, Refused (it did not commit
// and never will) turns back, and Unknown is asked again without bound. Meanwhile
// the application may still commit or abort: what is decided first stands. The
// application's own work comes after every try was answered; so a try that is
// unanswered at the deadline turns the transaction back.
//
// # Operators
//
// A person may step in with txn.TryAgain, Skip, Complete, Fail, Abort and
// Abandon. [State.Legal] says which of them are legal now about which branch,
// [State.Permits] why one is not:
//
//   - TryAgain asks again for what is STUCK, as its next attempt.
//   - Skip lets a confirm or cancel that is owed or STUCK count as answered
//     (SKIPPED): a reservation may remain. A try cannot be skipped or
//     completed: its confirm would not find it.
//   - Complete is a person's word that the branch was confirmed or cancelled.
//     Of the whole, it is their answer to a check that is asked: the work
//     committed. Abort is the other answer.
//   - Fail does as though the participant had refused: a try turns the
//     transaction back, a confirm or cancel is STUCK and parks it.
//   - Abort is legal until the decision. A transaction that is PARKED was
//     decided, and one that was decided to commit never turns back.
//   - Abandon ends the transaction as it is.
//
// An operator's word binds the transaction and not the participant: a call that
// is still under way may take effect after its branch was skipped or completed.
package tcc
