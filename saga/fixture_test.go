package saga_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

var writeFixtures = flag.Bool("write-fixtures", false, "write testdata/states of the present version")

const presentVersion = "v0.2"

// finish answers OK to everything until nothing is outstanding.
func finish(t *testing.T, d *saga.Definition, s saga.State) saga.State {
	t.Helper()
	for range 4 * (len(d.Steps) + 1) {
		calls := s.Outstanding(d)
		if len(calls) == 0 {
			if !s.Phase.Finished() && s.Phase != txn.Parked {
				t.Fatalf("waits for nothing, but is %s", s.Phase)
			}
			return s
		}
		for _, c := range calls {
			ev := txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.OK, Reply: []byte("r")}
			next, err := s.Advance(d, ev)
			if err != nil {
				t.Fatal(err)
			}
			if err := next.Check(d); err != nil {
				t.Fatal(err)
			}
			s = next
		}
	}
	t.Fatalf("does not end: %s", describeState(d, s))
	return s
}

// TestStatesOfEveryRelease: what a release has stored still loads, and ends.
func TestStatesOfEveryRelease(t *testing.T) {
	if *writeFixtures {
		storeFixtures(t)
	}
	paths, err := filepath.Glob("testdata/states/*/*.state.json")
	if err != nil || len(paths) < 10 {
		t.Fatalf("got %d states, want at least 10: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			data := read(t, path)
			d, err := saga.DecodeDefinition(read(t, path[:len(path)-len("state.json")]+"definition.json"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := saga.DecodeState(d, data)
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if filepath.Base(filepath.Dir(path)) == presentVersion && !bytes.Equal(data, again) {
				t.Errorf("is encoded in another way now:\n%s\n%s", data, again)
			}
			finish(t, d, s)
		})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(data)
}

// storeFixtures writes a state of each kind that simulations come through.
func storeFixtures(t *testing.T) {
	dir := filepath.Join("testdata/states", presentVersion)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	have := make(map[string]int)
	for seed := uint64(1); seed < 1500; seed++ {
		s := newSim(seed, false)
		s.state = saga.New(s.def)
		for range 20 + seed%10 {
			if len(s.state.Outstanding(s.def)) > 0 {
				if err := s.tick(); err != nil {
					t.Fatal(err)
				}
			}
		}
		end := s.ending()
		for _, st := range s.state.Steps {
			if st.Phase == saga.Skipped || st.Phase == saga.UndoSkipped {
				end += " " + st.Phase.String()
			}
		}
		if len(s.def.Steps) < 3 || have[end] >= 2 {
			continue
		}
		have[end]++
		def, err := s.def.Encode()
		if err != nil {
			t.Fatal(err)
		}
		state, err := s.state.Encode()
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, fmt.Sprintf("seed%d", seed))
		for ext, data := range map[string][]byte{".definition.json": def, ".state.json": state} {
			if err := os.WriteFile(name+ext, append(data, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
