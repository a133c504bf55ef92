package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amends-dev/amends/cmd/amends/internal/bench"
)

// measured runs a workload and returns what the file has of it.
func measured(t *testing.T, args ...string) bench.Result {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bench.json")
	ok(t, append([]string{"bench", "--dir", t.TempDir(), "--json", file, "--warmup", "10ms", "--for", "300ms"}, args...)...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rep bench.Report
	if err := json.Unmarshal(text, &rep); err != nil {
		t.Fatal(err)
	}
	if len(rep.Results) != 1 {
		t.Fatalf("measured %d workloads, want 1:\n%s", len(rep.Results), text)
	}
	return rep.Results[0]
}

// TestBenchScale measures sagas among others that ended, sleep or wait: those
// complete that are asked for, and the table says what they ran among.
func TestBenchScale(t *testing.T) {
	for _, store := range []string{"memory", "sqlite"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			r := measured(t, "saga", "--store", store, "--clients", "4",
				"--finished", "700", "--sleeping", "50", "--waiting", "50", "--streams", "3")
			if r.Completed == 0 || r.Failed > 0 || r.Ready <= 0 || r.Memory <= 0 || r.Began.IsZero() {
				t.Errorf("%+v", r)
			}
			for _, want := range []string{"700 finished", "50 sleeping", "50 waiting", "3 participants' streams"} {
				if !strings.Contains(r.Setup, want) {
					t.Errorf("setup %q does not say %q", r.Setup, want)
				}
			}
		})
	}
}

// TestBenchOverload offers far more than a coordinator admits: it refuses the
// rest with a delay, goes on, and nothing else fails.
func TestBenchOverload(t *testing.T) {
	t.Parallel()
	r := measured(t, "overload", "--store", "sqlite", "--clients", "32", "--max-live", "4", "--rate", "2000", "--warmup", "0s")
	if r.Completed == 0 || r.Refused == 0 || r.Failed > 0 || len(r.Failures) > 0 {
		t.Errorf("%+v", r)
	}
	if r.Started != r.Completed+r.Refused {
		t.Errorf("started %d, completed %d, refused %d", r.Started, r.Completed, r.Refused)
	}
}
