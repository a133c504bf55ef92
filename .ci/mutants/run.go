package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// mutant is a fault: text of a file is replaced.
type mutant struct {
	name string
	file string // from the root of the repository
	old  string // must be there exactly once
	with string
	why  string // what goes wrong in words
	test []test // that should catch it, tried in this order
}

// test is a part of a package's tests.
type test struct {
	pkg string
	run string   // of go test
	env []string // KEY=value
}

func (t test) String() string {
	return strings.TrimSpace(strings.Join(t.env, " ") + " go test -run '" + t.run + "' " + t.pkg)
}

// apply returns the mutated file. It fails unless the text to replace is in the
// file once: a fault that is no longer planted would look like one that is caught.
func (m mutant) apply(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(text, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("%s: %s holds %d times, want once: mend the table\n%s", m.name, m.file, n, m.old)
	}
	return bytes.Replace(text, []byte(m.old), []byte(m.with), 1), nil
}

// verdict is what a test said of a fault.
type verdict struct {
	test string // the first that failed, with its package; empty: none did
	took time.Duration
	runs string // how many random runs a simulation needed
	last string // the test that began last
	tail string // the output of what is no test's
}

// runner runs tests with a fault overlaid.
type runner struct {
	dir   string
	clean map[string]error // what tests say without any fault
}

func (r *runner) try(m mutant) (verdict, error) {
	text, err := m.apply(".")
	if err != nil {
		return verdict{}, err
	}
	overlay, err := r.overlay(m, text)
	if err != nil {
		return verdict{}, err
	}
	for _, t := range m.test {
		if err := r.passesClean(t); err != nil {
			return verdict{}, err
		}
		v, err := goTest(t, overlay)
		if err != nil || v.test != "" {
			return v, err
		}
	}
	return verdict{}, nil
}

// passesClean runs a test without any fault, once for all that name it.
func (r *runner) passesClean(t test) error {
	if _, known := r.clean[t.String()]; !known {
		v, err := goTest(t, "")
		if err == nil && v.test != "" {
			err = fmt.Errorf("%s fails without any fault: %s", v.test, t)
		}
		r.clean[t.String()] = err
	}
	return r.clean[t.String()]
}

// overlay writes the files for go test -overlay, and returns the name of its list.
func (r *runner) overlay(m mutant, text []byte) (string, error) {
	place, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	mutated, list := filepath.Join(r.dir, "mutated.go"), filepath.Join(r.dir, "overlay.json")
	data, err := json.Marshal(map[string]map[string]string{"Replace": {place: mutated}})
	if err != nil {
		return "", err
	}
	return list, errors.Join(os.WriteFile(mutated, text, 0o600), os.WriteFile(list, data, 0o600))
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// nthRun is how simulations say in which of their random runs they failed.
var nthRun = regexp.MustCompile(`the (\d+)\. run`)

// goTest runs a test. The error says that it could not be run.
func goTest(t test, overlay string) (verdict, error) {
	args := []string{"test", "-json", "-vet=off", "-count=1", "-failfast", "-tags=amends_invariants", "-timeout=4m"}
	args = append(args, "-run="+t.run)
	if overlay != "" {
		args = append(args, "-overlay="+overlay)
	}
	cmd := exec.Command("go", append(args, t.pkg)...)
	cmd.Env = append(os.Environ(), t.env...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	failed := cmd.Run()
	v, ran, err := read(&out)
	if panicked := strings.Contains(v.tail, "panic: "); v.test == "" && panicked {
		v.test = v.last + " (panic)" // or it hung, and go test ended it so
	}
	var exit *exec.ExitError
	switch {
	case err != nil:
		return verdict{}, err
	case failed != nil && !errors.As(failed, &exit):
		return verdict{}, failed
	case failed != nil && v.test == "":
		return verdict{}, fmt.Errorf("%s: no test failed, and the command did: %s\n%s", t, stderr.String(), v.tail)
	case ran == 0:
		return verdict{}, fmt.Errorf("%s ran no test", t)
	}
	return v, nil
}

// read finds in the output which test failed first, and how many ran.
func read(out *bytes.Buffer) (verdict, int, error) {
	var v verdict
	ran := 0
	var build strings.Builder
	for dec := json.NewDecoder(out); dec.More(); {
		var e event
		if err := dec.Decode(&e); err != nil {
			return verdict{}, 0, fmt.Errorf("read the output of go test: %w", err)
		}
		switch e.Action {
		case "run":
			ran++
			v.last = e.Test
		case "build-output":
			build.WriteString(e.Output)
		case "output":
			if n := nthRun.FindStringSubmatch(e.Output); n != nil {
				v.runs = n[1]
			}
			if e.Test == "" || strings.Contains(e.Output, "panic: ") {
				v.tail += e.Output
			}
		case "fail":
			if e.Test != "" && v.test == "" {
				v.test, v.took = e.Test, time.Duration(e.Elapsed*float64(time.Second))
			}
			if e.Test == "" {
				v.took = max(v.took, time.Duration(e.Elapsed*float64(time.Second)))
			}
		}
	}
	if build.Len() > 0 {
		return verdict{}, 0, fmt.Errorf("does not build:\n%s", build.String())
	}
	return v, ran, nil
}
