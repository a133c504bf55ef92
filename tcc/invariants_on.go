//go:build amends_invariants

package tcc

// invariants makes Advance check every state that it returns.
const invariants = true
