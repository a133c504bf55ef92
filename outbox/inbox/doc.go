// Package inbox remembers what was handled, in the transaction that handles it.
//
// A claim is one row, inserted before anything else in the transaction: the one
// who inserts it is first and does the work, everybody after finds it there. It
// is never looked up before: a reader that decides and then inserts races with
// the next one, or deadlocks with it. Commit keeps work and claim together, a
// rollback forgets both.
//
// Claim and Record are the guard of package sdk, Inbox.Once is the same for the
// messages of one source, and Consumer runs a handler on Kafka's topics with it.
package inbox
