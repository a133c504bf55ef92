// Package model checks the protocols of Amends exhaustively in small scopes: it
// goes through everything that can happen, in every order, and finds the
// shortest way to a broken promise.
//
// There are two models. [Transaction] is one saga or TCC transaction, decided by
// the real machines of packages saga and tcc, between two coordinators, a store
// with leases, and participants behind a guard. [Relay] is an outbox with its
// writers, two relays, a log and a consumer. Both lose, repeat and delay
// messages, lose answers of the store, end leases under coordinators that go on
// regardless, and crash.
//
// What a model leaves out is said at its type. The promises that it checks are
// in its Check. [Fault] plants mistakes; the tests show that each is found.
package model
