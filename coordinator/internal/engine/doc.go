// Package engine drives global transactions: it loads them, lets their machine
// decide, commits what was decided, and only then acts on it.
//
// Transactions are hashed onto shards. A worker owns some of the shards and is
// one goroutine, so no lock guards a transaction. What happens to transactions
// reaches a worker as functions in its bounded inbox, and what is new in another
// box, which comes after what is under way; their changes gather into
// a batch; one batch at a time is committed beside the worker, which goes on
// working; what waits for a change to be durable (an acknowledgement, a call)
// runs when its batch is committed. This is group commit: the busier the
// coordinator, the larger the batches.
//
// The database is the only truth of what is due. Timers in memory and
// notifications only make it sooner: a sweep finds whatever is due and not in
// memory, after a crash as in ordinary operation.
package engine
