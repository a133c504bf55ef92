//go:build !amends_invariants

package tcc

// invariants makes Advance check every state that it returns. Build with the
// tag amends_invariants to turn it on.
const invariants = false
