package simulation

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

// TestSimulation runs seeds. AMENDS_SIM_N says how many, AMENDS_SIM_SEED where
// to begin; alone: just that one, with its trail.
func TestSimulation(t *testing.T) {
	n, seed := 25, uint64(1) // what -race does in about ten seconds
	v, err := strconv.ParseUint(os.Getenv("AMENDS_SIM_SEED"), 10, 64)
	alone := err == nil
	if alone {
		n, seed = 1, v
	}
	if v, err := strconv.Atoi(os.Getenv("AMENDS_SIM_N")); err == nil {
		n, alone = v, false
	}
	warmUp(t)
	sum := summary{faults: map[string]int{}, trails: sha256.New(), began: time.Now()}
	for i := range n {
		s := seed + uint64(i) //nolint:gosec // not negative
		w := run(t, s)
		sum.add(w)
		if alone {
			fmt.Print(w.trail.String())
		}
		if len(w.wrong) > 0 {
			t.Errorf("seed %d: %d violations, the first: %s", s, len(w.wrong), w.wrong[0])
			t.Fatalf("trail in %s; repeat: make sim SEED=%d", keepTrail(t, w, s), s)
		}
	}
	t.Log(sum.String())
}

// summary is what several runs saw.
type summary struct {
	seeds, transactions int
	virtual             time.Duration
	faults              map[string]int
	trails              hash.Hash
	began               time.Time
}

func (s *summary) add(w *world) {
	s.seeds++
	s.transactions += len(w.facts)
	s.virtual += w.lasted
	for kind, n := range w.faults {
		s.faults[kind] += n
	}
	_, _ = io.WriteString(s.trails, w.trail.String()) // never fails
}

// String ends with a digest of all trails: where runs are exact it is the same
// each time.
func (s *summary) String() string {
	return fmt.Sprintf("%d seeds in %v (%v virtual), %d transactions, faults %v, trails %x", s.seeds,
		time.Since(s.began).Round(time.Millisecond), s.virtual.Round(time.Second), s.transactions, s.faults, s.trails.Sum(nil)[:8])
}

// warmUp runs one seed for what is made once in a program, so that the first one
// that counts is like any other.
func warmUp(t *testing.T) {
	t.Helper()
	if exact {
		run(t, 0)
	}
}

// run runs one seed. Built exactly, it runs in the same way each time.
func run(t *testing.T, seed uint64) (w *world) {
	t.Helper()
	if exact {
		runtime.GC() // now, and not in the middle
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	uuid.SetRand(&reader{r: rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})})
	defer uuid.SetRand(nil)
	synctest.Test(t, func(t *testing.T) {
		seedRuntime(seed<<1 | 1) // not 0
		defer seedRuntime(0)
		w = simulate(t, seed)
		w.lasted = time.Since(w.began)
	})
	return w
}

// reader is safe for concurrent use.
type reader struct {
	mu sync.Mutex
	r  io.Reader
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Read(b)
}

// keepTrail writes what happened to a file.
func keepTrail(t *testing.T, w *world, seed uint64) string {
	t.Helper()
	path := fmt.Sprintf("%s/amends-simulation-%d.txt", os.TempDir(), seed)
	if err := os.WriteFile(path, []byte(w.trail.String()), 0o600); err != nil {
		t.Error(err)
	}
	return path
}
