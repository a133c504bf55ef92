package tcc_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/amends-dev/amends/tcc"
)

var writeFixtures = flag.Bool("write-fixtures", false, "write testdata/states of the present version")

const presentVersion = "v0.3"

// TestStatesOfEveryRelease: what a release has stored still loads, and ends.
func TestStatesOfEveryRelease(t *testing.T) {
	if *writeFixtures {
		storeFixtures(t)
	}
	dirs, err := filepath.Glob("testdata/states/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no releases: %v", err)
	}
	for _, dir := range dirs {
		d, err := tcc.DecodeDefinition(read(t, filepath.Join(dir, "definition.json")))
		if err != nil {
			t.Fatal(err)
		}
		paths, err := filepath.Glob(filepath.Join(dir, "*.state.json"))
		if err != nil || len(paths) < 10 {
			t.Fatalf("%s: got %d states, want at least 10: %v", dir, len(paths), err)
		}
		for _, path := range paths {
			t.Run(path, func(t *testing.T) {
				data := read(t, path)
				s, err := tcc.DecodeState(d, data)
				if err != nil {
					t.Fatal(err)
				}
				again, err := s.Encode()
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Base(dir) == presentVersion && !bytes.Equal(data, again) {
					t.Errorf("is encoded in another way now:\n%s\n%s", data, again)
				}
				finish(t, d, s)
			})
		}
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

// storeFixtures writes a few states of each kind that simulations come through.
func storeFixtures(t *testing.T) {
	dir := filepath.Join("testdata/states", presentVersion)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	def, err := simDef.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("definition.json", def)
	have := make(map[string]int)
	for seed := uint64(1); seed < 1500; seed++ {
		s := newSim(seed, false)
		for range 20 + seed%30 {
			if err := s.tick(); err != nil {
				t.Fatal(err)
			}
		}
		skipped := slices.ContainsFunc(s.state.Branches, func(b tcc.BranchState) bool { return b.Phase == tcc.Skipped })
		kind := fmt.Sprint(s.state.Phase, s.state.Decision, skipped, s.state.Checking != nil)
		if len(s.state.Branches) < 2 || have[kind] >= 3 {
			continue
		}
		have[kind]++
		data, err := s.state.Encode()
		if err != nil {
			t.Fatal(err)
		}
		write(fmt.Sprintf("seed%d.state.json", seed), data)
	}
}
