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
// NewForwarder hands a topic's messages to an outbox.Publisher, without a database
// and so at least once.
//
// Inbox.OnceAbove needs one row for each key, and not for each message: where the
// messages of a key come in a growing sequence, the highest that was handled says
// all. What is given up meanwhile goes by its claim (Inbox.SetAside).
//
// # Messages that fail
//
// A Consumer tries a message some times where it stands, then in retry topics with
// growing delays where it is told to, and then sends it to the dead letters:
//
//	orders ─▶ orders.mailer.retry.5s ─▶ orders.mailer.retry.1m ─▶ orders.dead
//
// Each copy keeps the message's id, by which its effect stays once, and carries
// headers that tell what failed (HeaderError and those beside it). Messages behind
// a failed one pass it; with ConsumerConfig.KeepOrder those of its key wait behind
// it in the retry topics, in order, for which rows in the database keep the
// turns. Nobody's order survives a dead letter: what is behind it goes on.
//
// DeadLetters lists dead letters and sends them back.
package inbox
