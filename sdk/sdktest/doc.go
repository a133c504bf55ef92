// Package sdktest is a whole coordinator in a test.
//
// # A world
//
// New starts a coordinator on a store in memory. Participants attend to it, a
// client starts transactions, and when the test ends everything is stopped:
//
//	w := sdktest.New(t, nil)
//	p := sdk.NewParticipant("accounts", w.DB("accounts"), outbox.SQLite, nil)
//	sdk.HandleSaga(p, Debit, debit, undoDebit)
//	w.Attend(p)
//	run, err := sdk.Start(ctx, w.Client(), Transfer, in, nil)
//	err = run.Wait(ctx)
//	t.Log(w.Trail(run.GID()))
//
// Nothing leaves the process: no port, no file, no service. Inside a
// testing/synctest bubble time is virtual, so that timeouts, backoffs and
// deadlines of hours cost nothing, and a test of them is exact. It works
// outside a bubble as well, in real time.
//
// # What can go wrong
//
// Faults loses and repeats calls and answers on the way between the
// coordinator and its participants. Crash kills the coordinator between two
// instructions and opens another one on what it had committed. The guard and the
// machines have to cope with both; a handler that has an effect outside its
// transaction does not, and that is what such a test finds.
//
// # Every path of a saga
//
// Enumerate walks through every way that a saga can take: each call answered
// OK, refused or unknown, delivered twice or late, the caller's abort and the
// coordinator's crash, at each transition. It runs on the saga's machine and a
// model of the participants, without a coordinator, and optionally along each
// of these paths through the real handlers.
package sdktest
