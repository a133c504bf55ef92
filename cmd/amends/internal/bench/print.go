package bench

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Print writes what was measured as a table.
func (r *Report) Print(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "\n%s, %d cores, %s, %s, Linux %s, %s\n", m.CPU, m.Cores, m.Memory, m.FileSystem, m.Kernel, m.Go)
	for _, name := range sorted(r.Settings) {
		fmt.Fprintf(w, "%s: %s\n", name, r.Settings[name])
	}
	for _, name := range sorted(r.Limits) {
		fmt.Fprintf(w, "limit: %s %.0f/s\n", name, r.Limits[name])
	}
	if len(r.Results) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tcompleted/s\tp50 ms\tp99 ms\tp99.9 ms\trefused\tfailed\tCPU us\tallocs\tstatements\tfsyncs\tready s\tMiB\tof the limit\t")
	for i := range r.Results {
		res := &r.Results[i]
		limit := ""
		if res.Limit != "" {
			limit = fmt.Sprintf("%.0f%% %s", 100*res.Fraction, res.Limit)
		}
		l, c := res.Latency, res.Cost
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%.2f\t%.2f\t%d\t%d\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t%s\t\n", res.Workload, res.PerSecond, l.P50, l.P99, l.P999,
			res.Refused, res.Failed, c.CPUMicros, c.Allocs, c.Statements, c.Fsyncs, res.Ready, res.Memory, limit)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range r.Results {
		if n := r.Results[i].Unsent; n > 0 {
			fmt.Fprintf(w, "%s: %d not sent: too many were unanswered\n", r.Results[i].Workload, n)
		}
		for _, kind := range sorted(r.Results[i].Failures) {
			fmt.Fprintf(w, "%s: %d failed: %s\n", r.Results[i].Workload, r.Results[i].Failures[kind], kind)
		}
	}
	return nil
}

// Compare writes how results differ between two reports, for workloads that
// both have in the same setup; each of several runs of one is a row.
func Compare(w io.Writer, before, after *Report) error {
	if before.Machine != after.Machine {
		fmt.Fprintln(w, "These were measured on different machines, or by different versions of Go.")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tbefore/s\tafter/s\tratio\tp50 ms\tp99 ms\tCPU us\t")
	for _, a := range medians(before.Results) {
		for _, b := range medians(after.Results) {
			if a.Workload != b.Workload || a.Setup != b.Setup {
				continue
			}
			fmt.Fprintf(t, "%s (%s)\t%.0f\t%.0f\t%.2f\t%.2f -> %.2f\t%.2f -> %.2f\t%.0f -> %.0f\t\n", a.Workload, a.Setup,
				a.PerSecond, b.PerSecond, b.PerSecond/a.PerSecond, a.Latency.P50, b.Latency.P50, a.Latency.P99, b.Latency.P99,
				a.Cost.CPUMicros, b.Cost.CPUMicros)
		}
	}
	return t.Flush()
}

// medians keeps of several runs of one workload and setup the one in the middle,
// by rate.
func medians(all []Result) []Result {
	var kept []Result
	for i := range all {
		same := func(r Result) bool { return r.Workload == all[i].Workload && r.Setup == all[i].Setup }
		if slices.ContainsFunc(kept, same) {
			continue
		}
		var runs []Result
		for _, r := range all {
			if same(r) {
				runs = append(runs, r)
			}
		}
		slices.SortFunc(runs, func(a, b Result) int {
			switch {
			case a.PerSecond < b.PerSecond:
				return -1
			case a.PerSecond > b.PerSecond:
				return 1
			}
			return 0
		})
		kept = append(kept, runs[len(runs)/2])
	}
	return kept
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
