package scene

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/amends-dev/amends/cmd/torture/internal/check"
	"github.com/amends-dev/amends/cmd/torture/internal/load"
	"github.com/amends-dev/amends/cmd/torture/internal/nemesis"
)

// Report is what came of an attack.
type Report struct {
	Scene        string           `json:"scene"`
	Seed         uint64           `json:"seed"`
	Seconds      float64          `json:"seconds"` // of clients and faults
	Lease        float64          `json:"lease_s"`
	Coordinators int              `json:"coordinators"`
	Clients      int              `json:"clients"`
	Skew         float64          `json:"skew_s,omitempty"`       // how far clocks were off at most, either way
	Other        string           `json:"other_binary,omitempty"` // what the first coordinator ran
	Rounds       int              `json:"rounds"`                 // faults
	Faults       map[string]int   `json:"faults"`                 // by kind
	Trail        []nemesis.Fault  `json:"trail"`
	Ends         map[string]int   `json:"transactions"` // by name and end, as the database has them
	Saw          load.Figures     `json:"clients_saw"`
	Pause        check.Pause      `json:"pause"` // from the kill of a coordinator to the next answered call of its shards
	RestSeconds  float64          `json:"rest_s"`
	PeakRSS      map[string]int64 `json:"peak_rss_bytes"`
	Findings     []check.Finding  `json:"findings"`
	Violations   int              `json:"violations"`
	Dir          string           `json:"dir,omitempty"` // where everything was kept
}

func newReport(c Config) *Report {
	return &Report{
		Scene: c.Name, Seed: c.Seed, Seconds: c.For.Seconds(), Lease: c.Lease.Seconds(), Coordinators: c.Coordinators, Clients: c.Clients,
		Skew: c.Skew.Seconds(), Other: c.Other, Faults: map[string]int{}, PeakRSS: map[string]int64{},
	}
}

func (r *Report) took(saw load.Figures, faults []nemesis.Fault) {
	r.Saw, r.Trail, r.Rounds = saw, faults, len(faults)
	for _, f := range faults {
		r.Faults[f.Kind]++
	}
}

// struck are the coordinators that were killed: none while clocks are off, by
// which it cannot be told what came when.
func (r *Report) struck() []check.Struck {
	var all []check.Struck
	if r.Skew > 0 {
		return nil
	}
	for _, f := range r.Trail {
		if f.Kind == nemesis.Kill && len(f.Shards) > 0 {
			all = append(all, check.Struck{At: f.At, Shards: f.Shards})
		}
	}
	return all
}

// judged takes over what was found, and adds what the databases do not know.
func (r *Report) judged(j *check.Judgement, strict bool) {
	r.Findings, r.Violations, r.Ends, r.Pause = j.Findings, j.Violations, j.Ends, j.Pause
	add := func(f check.Finding) {
		r.Findings = append(r.Findings, f)
		r.Violations += f.Violations
	}
	terms, bad := 0, 0
	for _, f := range r.Trail {
		if f.Kind == nemesis.Term {
			terms++
			if f.Code != 0 || len(f.Shards) > 0 {
				bad++
			}
		}
	}
	if terms > 0 {
		add(check.Finding{Promise: "SIGTERM ends a coordinator in order", Violations: bad,
			Figures: fmt.Sprintf("%d asked, %d failed or left leases behind", terms, bad)})
	}
	f := check.Finding{Promise: "no client's request fails", Figures: fmt.Sprintf("%d of %d failed", r.Saw.Failed, r.Saw.Requests)}
	if strict {
		f.Violations, f.Examples = r.Saw.Failed, r.Saw.Errors
		add(f)
	}
}

// Save writes the report as JSON.
func (r *Report) Save(path string) error { return saveJSON(path, r) }

func saveJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

// Print writes the report as a table.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("scene", "%s, seed %d, %.0f s, %d coordinators, %d clients, lease %.0f s", r.Scene, r.Seed, r.Seconds, r.Coordinators, r.Clients, r.Lease)
	if r.Other != "" {
		row("mixed", "c1 ran %s", r.Other)
	}
	row("faults", "%d rounds: %s", r.Rounds, counts(r.Faults))
	row("transactions", "%s", counts(r.Ends))
	row("clients", "%d requests, %d failed, %d refused for want of room; acknowledged in %.0f ms (median), %.0f (p99), %.0f (max)",
		r.Saw.Requests, r.Saw.Failed, r.Saw.Overloaded, r.Saw.AckMedian, r.Saw.AckP99, r.Saw.AckMax)
	row("", "%s", counts(r.Saw.Started))
	row("operators", "%s; %d not legal", counts(r.Saw.Verbs), r.Saw.Refused)
	if r.Skew > 0 {
		row("clocks", "off by up to %.0f s, either way: how long after a kill the next call came cannot be told", r.Skew)
	} else {
		row("kill to next call", "%d kills: median %.2f s, max %.2f s, %d without a next call",
			r.Pause.Kills, r.Pause.Median, r.Pause.Max, r.Pause.Never)
	}
	row("at rest", "%.1f s after the last fault", r.RestSeconds)
	row("peak memory", "%s", megabytes(r.PeakRSS))
	for _, e := range r.Saw.Errors {
		row("failed", "%s", e)
	}
	fmt.Fprintln(t)
	for _, f := range r.Findings {
		verdict := "holds"
		if f.Violations > 0 {
			verdict = fmt.Sprintf("VIOLATED %d times", f.Violations)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Promise, verdict, f.Figures)
		for _, e := range f.Examples {
			fmt.Fprintf(t, "\t  %s\n", e)
		}
	}
	fmt.Fprintf(t, "violations\t%d\n", r.Violations)
	return t.Flush()
}

func counts(of map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, of[name]))
	}
	return strings.Join(parts, ", ")
}

func megabytes(of map[string]int64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%s %d MB", name, of[name]>>20))
	}
	return strings.Join(parts, ", ")
}
