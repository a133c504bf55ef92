package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amends-dev/amends/deploy/services"
	"github.com/amends-dev/amends/examples/shop/internal/orders"
)

// The programs, built once for all tests.
var amendsProgram, shopProgram string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "amends-shop-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	amendsProgram, shopProgram = filepath.Join(dir, "amends"), filepath.Join(dir, "shop")
	for program, source := range map[string]string{amendsProgram: "../../cmd/amends", shopProgram: "."} {
		build := exec.Command("go", "build", "-buildvcs=false", "-tags", "amends_invariants", "-o", program, source)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

const patience = 3 * time.Minute // with a JVM on a busy machine

// environment is the test's own without the servers that it names, and with
// others.
func environment(others ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return slices.ContainsFunc(services.All, func(s services.Service) bool { return strings.HasPrefix(v, s.Env()+"=") })
	})
	return append(env, others...)
}

// shop runs the program to its end.
func shop(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return shopWith(t, environment(), args...)
}

func shopWith(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, shopProgram, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("shop %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// someOrders writes a file with n orders, one whose gift is out of stock, and
// bad lines.
func someOrders(t *testing.T, n int, bad ...string) string {
	t.Helper()
	var text bytes.Buffer
	if err := orders.Generate(&text, n, 3); err != nil {
		t.Fatal(err)
	}
	bad = append([]string{`{"id":"greedy","customer":"ada","product":"cup","quantity":1,"gift":"samovar"}`}, bad...)
	for _, line := range bad {
		text.WriteString(line + "\n")
	}
	file := filepath.Join(t.TempDir(), "orders.jsonl")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestShippedOrders keeps the file and its generator together.
func TestShippedOrders(t *testing.T) {
	var want bytes.Buffer
	if err := orders.Generate(&want, 1000, 1); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ordersFile, want.Bytes()) {
		t.Error("orders.jsonl is not what `shop orders` writes: write it again")
	}
}

func TestWrongCalls(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(full, "x") // a file without a line
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":         {nil, 2, "usage:"},
		"unknown command": {[]string{"sell"}, 2, "usage:"},
		"unknown flag":    {[]string{"demo", "--fast"}, 2, "-fast"},
		"argument":        {[]string{"orders", "17"}, 2, `unexpected argument "17"`},
		"output":          {[]string{"demo", "--output", "xml"}, 2, `--output is "xml", want text or json`},
		"services":        {[]string{"demo", "--services", "paper"}, 2, `--services is "paper", want embedded or real`},
		"no database":     {[]string{"service", "order", "--dir", full, "--kafka", ":1", "--redis", ":1", "--mysql"}, 2, "AMENDS_MYSQL_DSN is not set"},
		"rate":            {[]string{"demo", "--rate", "-1"}, 2, "--rate is -1"},
		"no program":      {[]string{"demo", "--amends", "/nowhere/amends"}, 1, "go build -o /nowhere/amends ./cmd/amends"},
		"no orders":       {[]string{"demo", "--amends", amendsProgram, "--orders", "/nowhere"}, 1, "--orders: open /nowhere"},
		"no order in it":  {[]string{"demo", "--amends", amendsProgram, "--orders", none}, 1, "holds no order that can be placed"},
		"full directory":  {[]string{"demo", "--amends", amendsProgram, "--dir", full}, 1, "is not empty"},
		"which service":   {[]string{"service"}, 2, "which service?"},
		"no addresses":    {[]string{"service", "order", "--dir", full}, 2, "--kafka"},
		"unknown service": {[]string{"service", "x", "--dir", full, "--kafka", ":1", "--redis", ":1"}, 1, `"x" is unknown`},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := shop(t, c.args...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, want %d, with %q; stderr:\n%s", code, c.code, c.says, stderr)
			}
		})
	}
}

// TestInterrupted ends a demo in its middle, politely and not, and looks for
// what it left behind.
func TestInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "demo")
			var stderr bytes.Buffer
			cmd := exec.Command(shopProgram, "demo", "--amends", amendsProgram, "--dir", dir, "--rate", "20")
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() }) // gone already, unless the test failed
			awaitLine(t, stdout, "lines done")
			// One may be missing for a moment: the demo makes some crash.
			eventually(t, "the demo, the coordinator, four services and the relay run", func() bool {
				return len(processesOf(t, dir)) == 7
			})
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code tells
			if sig == syscall.SIGINT && cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("%v, want exit code 1; stderr:\n%s", cmd.ProcessState, stderr.String())
			}
			eventually(t, "all processes are gone", func() bool { return len(processesOf(t, dir)) == 0 })
		})
	}
}

// processesOf returns the command lines that name dir. It finds none where
// there is no /proc.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err == nil && bytes.Contains(line, []byte(dir)) {
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		}
	}
	return found
}
