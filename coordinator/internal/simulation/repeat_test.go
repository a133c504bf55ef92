//go:build amends_exact

package simulation

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestSimulationRepeats runs seeds twice and wants the same trail, to the byte.
func TestSimulationRepeats(t *testing.T) {
	warmUp(t)
	n := 50
	if v, err := strconv.Atoi(os.Getenv("AMENDS_SIM_N")); err == nil {
		n = min(n, v)
	}
	for seed := range uint64(n) { //nolint:gosec // positive
		one, two := run(t, seed+1).trail.String(), run(t, seed+1).trail.String()
		if one == two {
			continue
		}
		a, b := strings.Split(one, "\n"), strings.Split(two, "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Errorf("seed %d differs from line %d of %d:\n%s\n%s", seed+1, i+1, len(a), a[i], b[i])
				break
			}
		}
	}
}
