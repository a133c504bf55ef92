//go:build !amends_exact

package simulation

const exact = false

func seedRuntime(uint64) {}
