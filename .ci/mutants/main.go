// Command mutants plants deliberate faults in the product's code, one at a
// time, and runs the tests that should catch each. A fault that no test catches
// is a promise that nobody watches.
//
//	go run ./.ci/mutants                # all
//	go run ./.ci/mutants -run guard     # those whose name matches
//	go run ./.ci/mutants -check         # only that each finds its place in the code
//
// Nothing is changed in the tree: the faults are overlaid (go help build,
// -overlay). It fails when a fault survives, when a place is not found, or when
// tests fail without any fault. The last column of what it prints says how many
// random runs a simulation needed, where it says so.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"
)

func main() {
	pattern := flag.String("run", "", "only faults whose name matches this regular expression")
	check := flag.Bool("check", false, "run no test, only look whether each fault finds its place")
	flag.Parse()
	if err := run(*pattern, *check); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(pattern string, check bool) error {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var errs []error
	ran := 0
	r := runner{dir: dir, clean: map[string]error{}}
	for _, m := range mutants {
		if !re.MatchString(m.name) {
			continue
		}
		ran++
		if _, err := m.apply("."); err != nil {
			errs = append(errs, err)
		} else if !check {
			errs = append(errs, r.report(m))
		}
	}
	fmt.Printf("\n%d faults\n", ran)
	if ran == 0 {
		errs = append(errs, fmt.Errorf("no fault's name matches %q", pattern))
	}
	return errors.Join(errs...)
}

// report runs a fault's tests and prints a line of a table about it.
func (r *runner) report(m mutant) error {
	begun := time.Now()
	v, err := r.try(m)
	if err != nil {
		fmt.Printf("| %s | ERROR | | |\n", m.name)
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if v.test == "" {
		fmt.Printf("| %s | SURVIVED | %.0f s | |\n", m.name, time.Since(begun).Seconds())
		return fmt.Errorf("%s survived: %s", m.name, m.why)
	}
	fmt.Printf("| %s | %s | %.1f s | %s |\n", m.name, v.test, v.took.Seconds(), v.runs)
	return nil
}
