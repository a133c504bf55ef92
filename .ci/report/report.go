package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/amends-dev/amends/deploy/services"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

type report struct {
	out                     io.Writer
	output                  map[string][]string // of what has not ended yet, by package and test
	tests                   map[string]int      // that ended, by package
	passed, failed, skipped int
	skips                   []string
	broken                  []string // packages that failed
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string][]string{}, tests: map[string]int{}}
}

func (r *report) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		fmt.Fprintf(r.out, "%s", line) // not test2json's: show it as it is
		return
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		key := e.Package + "\x00" + e.Test
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		r.ended(e)
	}
}

func (r *report) ended(e event) {
	key := e.Package + "\x00" + e.Test
	lines := r.output[key]
	delete(r.output, key)
	if e.Test == "" {
		r.endedPackage(e, lines)
		return
	}
	r.tests[e.Package]++
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped++
		r.skips = append(r.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(lines)))
	case "fail":
		r.failed++
		fmt.Fprint(r.out, strings.Join(lines, ""))
	}
}

func (r *report) endedPackage(e event, lines []string) {
	switch {
	case e.Action == "fail":
		r.broken = append(r.broken, e.Package)
		r.unfinished(e.Package)
		fmt.Fprint(r.out, strings.Join(lines, ""))
	case e.Action == "skip" || r.tests[e.Package] == 0:
		fmt.Fprintf(r.out, "?     %s\t[no tests]\n", e.Package)
	default:
		fmt.Fprintf(r.out, "ok    %s\t%.1fs\t%d tests\n", e.Package, e.Elapsed, r.tests[e.Package])
	}
}

// unfinished prints what tests had said that a crash or timeout cut short.
func (r *report) unfinished(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(r.output)) {
		if strings.HasPrefix(key, pkg+"\x00") {
			fmt.Fprint(r.out, strings.Join(r.output[key], ""))
			delete(r.output, key)
		}
	}
}

// reason finds what a skipped test said: the indented line of t.Skip.
func reason(lines []string) string {
	var said []string
	for _, l := range lines {
		if strings.HasPrefix(l, "    ") {
			said = append(said, strings.TrimSpace(l))
		}
	}
	if len(said) == 0 {
		return "it gave no reason"
	}
	return strings.Join(said, " ")
}

// finder answers with where a service is, or why there is none.
type finder func(services.Service) (addr, why string)

// finish prints the closing lines and tells whether all is well.
func (r *report) finish(strict bool, find finder) bool {
	fmt.Fprintln(r.out)
	for _, s := range r.skips {
		fmt.Fprintln(r.out, "skipped:", s)
	}
	for _, s := range services.All {
		if addr, why := find(s); addr == "" {
			fmt.Fprintf(r.out, "not covered: the tests on a real %s: %s\n", s.Title(), why)
		} else {
			fmt.Fprintf(r.out, "covered: a real %s\n", s.Title())
		}
	}
	for _, p := range r.broken {
		fmt.Fprintln(r.out, "FAIL ", p)
	}
	fine := r.failed == 0 && len(r.broken) == 0
	if strict && (r.skipped > 0 || r.passed == 0) {
		fmt.Fprintln(r.out, "AMENDS_REQUIRE_SERVICES=1: tests that skip themselves, or none at all, are a failure")
		fine = false
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return fine
}
