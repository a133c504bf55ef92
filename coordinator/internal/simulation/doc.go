// Package simulation is the whole system in one process and virtual time:
// several coordinators on one store, participants behind their guards, clients,
// an operator, an outbox with its relay, a log and its consumers. What runs is
// the product's code; what lies between its parts (network, store, databases,
// log, Redis) is ours, and fails as a seed says. It is all in the tests.
//
// # One seed, one run
//
// No fault is drawn from a shared sequence: each is a hash of the seed and of
// what it happens to (whose call, about which transaction, for which time), so
// that it does not depend on which goroutine comes first. Messages take times of
// their own, and so virtual time orders what happens.
//
// What remains is the Go runtime: the order of goroutines that are ready at the
// same time, of cases of a select, of maps, and the numbers of math/rand. Built
// with the overlay that the command exact writes, these follow the seed too, and
// a seed is repeated to the byte.
package simulation
