// Package idempotency is net/http middleware for the Idempotency-Key request
// header, by draft-ietf-httpapi-idempotency-key-header-07: a client that did not
// get its answer sends the same request with the same key again, and gets the
// answer of the first one, status, headers and body, instead of a second effect.
//
//	keys, err := idempotency.New(db, outbox.MySQL, tenantOf, &idempotency.Config{Transactional: true})
//	…
//	mux.Handle("POST /transfers", keys.Wrap(transfers))
//
// Answers live in the service's database, in a table that outbox.Migrate makes.
// A key belongs to its caller and its route: those of two tenants never meet.
//
// What is guaranteed depends on Config.Transactional:
//
//   - Transactional: the handler works in the transaction that Tx gives it, and
//     its changes and its answer are committed together. They take effect exactly
//     once for each key, whatever crashes, for as long as Config.Retention.
//   - Otherwise the answer is recorded after the handler has returned. A process
//     that dies in between leaves the key claimed until its Config.Lease ends; then a
//     repeated request runs the handler again: at least once.
//
// Either way a key has one running handler at a time, and other requests with it
// get 409 meanwhile. Answers of 500 and above are not recorded: they say that
// nothing final happened, and the next request with the key runs the handler
// again. Requests of other methods than Config.Methods pass through untouched.
package idempotency
