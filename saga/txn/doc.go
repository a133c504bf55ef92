// Package txn holds the words that sagas and TCC transactions share: the
// states of a global transaction, the calls that a participant receives, the
// three ways in which a call can end, when it is tried again, and what an
// operator may do about a transaction that does not go on by itself.
//
// It is pure: no I/O, no goroutine, no clock, no randomness. Packages saga and
// tcc decide with these words, the coordinator drives them, and the SDK
// answers them.
package txn
