//go:build amends_invariants

package saga

// invariants makes Advance check every state that it returns.
const invariants = true
