package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/cmd/amends/internal/bench"
)

// TestBench measures each workload for a moment: what is measured completes, and
// is told in the table and in the file, which can be compared with itself.
func TestBench(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench.json")
	args := append([]string{"bench"}, bench.Workloads()...)
	args = append(args, "--store", "sqlite", "--dir", t.TempDir(), "--clients", "4", "--warmup", "10ms", "--for", "200ms",
		"--messages", "300", "--rate", "200", "--refuse", "0.25", "--payload", "50", "--guard", "--json", file)
	out := ok(t, args...)
	var rep bench.Report
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &rep); err != nil {
		t.Fatal(err)
	}
	var measured []string
	for i := range rep.Results {
		r := &rep.Results[i]
		measured = append(measured, r.Workload)
		if r.Completed == 0 || r.Failed > 0 || r.Started != r.Completed+r.Refused+r.Failed {
			t.Errorf("%s: started %d, completed %d, refused %d, failed %d", r.Workload, r.Started, r.Completed, r.Refused, r.Failed)
		}
		if !strings.Contains(out, r.Workload) {
			t.Errorf("the table has no %s:\n%s", r.Workload, out)
		}
	}
	if want := slices.DeleteFunc(bench.Workloads(), func(w string) bool { return w == "limits" }); !slices.Equal(measured, want) {
		t.Errorf("measured %v, want %v", measured, want)
	}
	for _, limit := range []string{"fsync", "insert", "insert_multi_row", "grpc_unary", "produce"} {
		if rep.Limits[limit] <= 0 {
			t.Errorf("limit %s is %v", limit, rep.Limits[limit])
		}
	}
	if same := ok(t, "bench", "--compare", file+","+file); !strings.Contains(same, "1.00") {
		t.Errorf("compared with itself:\n%s", same)
	}
}

func TestBenchWrongFlags(t *testing.T) {
	for _, wrong := range []struct{ args, want string }{
		{"bench sagas", "sagas"},
		{"bench --store postgres", "store"},
		{"bench --clients 0", "clients"},
		{"bench --refuse 2", "refuse"},
		{"bench --for 0s", "time to measure"},
		{"bench --repeat 0", "--repeat"},
		{"bench --compare one.json", "--compare"},
		{"bench latency", "--rate"},
		{"bench saga --sleeping -1", "sleeping"},
		{"bench saga --coordinators 2", "--store mysql"},
		{"bench saga --streams -1", "streams"},
	} {
		got := amends(t, strings.Fields(wrong.args)...)
		if got.code == 0 || !strings.Contains(got.stderr, wrong.want) {
			t.Errorf("%s: exit code %d, said %q, want %q in it", wrong.args, got.code, got.stderr, wrong.want)
		}
	}
}
