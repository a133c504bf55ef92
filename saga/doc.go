// Package saga describes sagas and decides what they do next.
//
// A saga is a transaction made of steps. Each step is an action of some
// service, and whoever offers an action knows how to undo it. When every step
// is done the saga has committed; when it turns back, every step that was ever
// started is undone, dependents first.
//
// The package is pure: plain data and functions, with no I/O, goroutine, clock
// or randomness. A [Definition] says what one run does; it is usually built
// from Go code with [Define] and stored with the run, so that a deploy never
// changes what a running saga does. A [State] says how far the run has come:
//
//	s := saga.New(def)
//	for !s.Phase.Finished() {
//		for _, call := range s.Outstanding(def) { … ask the participant … }
//		s, err = s.Advance(def, reply)
//	}
//
// What a saga waits for is a function of its state. Whoever loads the state
// after a crash asks for exactly the same, so recovery is the ordinary path.
//
// # Rules
//
// An OK counts whichever attempt it answers; Refused and Unknown count only
// for the current attempt. Every step that was started is undone, even one
// that refused or whose outcome is unknown, because an earlier delivery of the
// call may still take effect: the participant's guard answers the undo of
// something that never ran with OK and makes sure that it never will.
//
// A step's undo waits until every step that depends on it is undone.
// Independent steps are undone in parallel. An undo is owed: it is retried
// without bound, and a participant that refuses it parks the saga.
//
// A [Pivot] is the point of no return. Once it is done the saga only goes
// forward, and the [Retriable] steps after it are retried without bound. A
// saga that turns back while its pivot is under way cannot know whether the
// pivot took effect, so the pivot's undo is called first and alone (it is
// fenced). OK means that the pivot does not stand, and the other undos follow.
// Refused means that it does, and the saga goes forward after all.
//
// What a retriable step did is never undone, so [Saga.Build] wants each to come
// after the pivot. A definition made otherwise may have one elsewhere. If such a
// saga turns back, that step is not waited for and what it did stands, also when
// it does so after the saga was reported as rolled back.
//
// # Steps that may have been called
//
// Whoever drives a saga may call steps on replies that are not stored yet, where
// the participant repeats them. Whoever takes the saga over then cannot know
// which steps were called, and says which may have been, with [State.Presume].
//
// # Operators
//
// A person may step in with txn.TryAgain, Skip, Complete, Fail, Abort and
// Abandon. [State.Legal] says which of them are legal now about which step,
// [State.Permits] why one is not. What a step owes now is its do while it is
// DOING (or PENDING, which can only be skipped), its undo while it is UNDOING,
// and the one that was refused while it is STUCK:
//
//   - TryAgain asks again for what is STUCK, as its next attempt.
//   - Skip lets the do count as done, with no reply (SKIPPED), or the undo as
//     answered (UNDO_SKIPPED): effects may remain. A step that was skipped
//     before it was called is never called, and what comes after it still waits
//     for what is before it; so one that may have been called cannot be skipped
//     before its turn. One that was skipped while under way may have taken
//     effect, so it is undone when the saga turns back. A step after it that may
//     have been called keeps the reply that it was called with.
//   - Complete is a person's word that it was done, with a reply, or undone.
//     What was done by hand is undone like anything else: a participant that
//     never ran the do has nothing to undo, so that is by hand too. It is refused
//     while a step after it may have been called with the participant's reply.
//   - Fail does as though the participant had refused: the saga turns back, or
//     is PARKED where it cannot.
//   - Abort turns a saga back that has not passed its pivot. One that is PARKED
//     either turns back already or has passed it.
//   - Abandon ends the saga as it is.
//
// Skipping the pivot passes the point of no return once everything before it
// counts as done. While the pivot is fenced, its undo cannot be skipped, because
// its answer tells which way the saga goes: Complete says that the pivot does
// not stand and the others are undone, Fail that it stands and the saga goes
// forward with no reply of it. The retriable steps beside it can be skipped,
// and completed once they were started, so that they need nothing more if the
// saga goes forward.
//
// An operator's word binds the saga and not the participant: a call that is
// still under way may take effect after its step was skipped or completed, and
// nobody undoes an effect whose undo was.
package saga
