// Exact writes an overlay for the go command, under which the runtime takes its
// random numbers in a testing/synctest bubble from a seed and never interrupts a
// goroutine: with one processor and no garbage collection, a bubble then runs in
// the same way each time.
//
//	go test -overlay "$(go run ./coordinator/internal/simulation/exact DIR)" -tags amends_exact …
//
// It changes copies of two files of the Go distribution, kept in DIR, and nothing
// else. A Go version whose runtime looks different is an error that says what was
// not found.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// patch replaces a text that a file of the runtime holds once.
type patch struct{ old, text string }

// drawn is what the runtime gets. Maps get a constant: how many of them are made
// depends on what is cached.
const drawn = `
// simulationSeed makes what is drawn in a bubble follow from it; 0: nothing is.
//
//go:linkname simulationSeed
var simulationSeed uint64

// simulationNumbers and simulationOrder are how far the sequences have come,
// for math/rand, and for cases of a select and timers of the same instant.
//
//go:linkname simulationNumbers
var simulationNumbers uint64

//go:linkname simulationOrder
var simulationOrder uint64

//go:nosplit
func simulating() bool {
	gp := getg().m.curg
	return simulationSeed != 0 && gp != nil && gp.bubble != nil
}

//go:nosplit
func simulated(state *uint64) uint64 {
	*state += 0xa0761d6478bd642f
	hi, lo := math.Mul64(*state^simulationSeed, *state^0xe7037ed1a0b428db)
	return hi ^ lo
}

//go:nosplit
func simulatedn(n uint32) uint32 {
	if !simulating() {
		return cheaprandn(n)
	}
	return uint32((simulated(&simulationOrder) >> 32 * uint64(n)) >> 32)
}
`

var patches = map[string][]patch{
	"rand.go": {
		{"var readRandomFailed bool\n", "var readRandomFailed bool\n" + drawn},
		{"	globalRand.state.Init(*seed)\n", "	*seed = [32]byte{1}\n	globalRand.state.Init(*seed)\n"},
		{"func rand() uint64 {\n", "func rand() uint64 {\n	if simulating() {\n		return simulated(&simulationNumbers)\n	}\n"},
		{"func maps_rand() uint64 {\n", "func maps_rand() uint64 {\n	if simulating() {\n		return simulationSeed * 0xe7037ed1a0b428db\n	}\n"},
	},
	"select.go": {{"cheaprandn(uint32(norder + 1))", "simulatedn(uint32(norder + 1))"}},
	"time.go":   {{"t.rand = cheaprand()", "t.rand = simulatedn(1 << 31)"}},
	"proc.go": {
		{"if pp.schedtick%61 == 0 && !sched.runq.empty() {", "if false {"},
		{"func retake(now int64) uint32 {\n", "func retake(now int64) uint32 {\n	if now > 0 {\n		return 0\n	}\n"},
	},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "exact:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: exact DIR")
	}
	dir, err := filepath.Abs(os.Args[1])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	out, err := exec.CommandContext(context.Background(), "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	replace := map[string]string{}
	for name, changes := range patches {
		from, to := filepath.Join(strings.TrimSpace(string(out)), "src", "runtime", name), filepath.Join(dir, name)
		if err := change(from, to, changes); err != nil {
			return err
		}
		replace[from] = to
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func change(from, to string, changes []patch) error {
	text, err := os.ReadFile(from) //nolint:gosec // of the Go distribution
	if err != nil {
		return err
	}
	s := string(text)
	for _, p := range changes {
		if strings.Count(s, p.old) != 1 {
			return fmt.Errorf("%s does not hold %q once: this Go version needs other patches", from, p.old)
		}
		s = strings.Replace(s, p.old, p.text, 1)
	}
	return os.WriteFile(to, []byte(s), 0o600)
}
