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
package saga
