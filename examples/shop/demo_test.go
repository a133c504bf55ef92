package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/examples/shop/internal/demo"
)

// awaitLine reads until a line contains text.
func awaitLine(t *testing.T, r io.Reader, text string) {
	t.Helper()
	for s := bufio.NewScanner(r); s.Scan(); {
		if strings.Contains(s.Text(), text) {
			return
		}
	}
	t.Fatalf("ended without saying %q", text)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// TestDemo runs all of it, with both kills and a few bad lines.
func TestDemo(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	file := someOrders(t, 60, `{"id":"x"`, `{"id":"x","customer":"ada","product":"cup","quantity":1,"colour":"red"}`)
	code, stdout, stderr := shop(t, "demo", "--amends", amendsProgram, "--orders", file)
	if code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, want := range []string{
		":65: left out: not JSON", `:66: left out: unknown field "colour"`,
		"coordinator is gone", "coordinator is back", "payment is gone", "payment is back",
		"card declined", "unknown product", "holds   money conserved", "holds   audit chains unbroken",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("did not say %q:\n%s", want, stdout)
		}
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "ok: ") {
		t.Errorf("the last line is %q", last)
	}
	leftNothing(t, tmp)
}

func leftNothing(t *testing.T, tmp string) {
	t.Helper()
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind in the temporary directory: %v, %v", left, err)
	}
	if running := processesOf(t, tmp); len(running) > 0 {
		t.Errorf("left running: %q", running)
	}
}

// TestDemoJSON looks at the figures of another run.
func TestDemoJSON(t *testing.T) {
	code, stdout, stderr := shop(t, "demo", "--amends", amendsProgram, "--orders", someOrders(t, 60), "--output", "json",
		"--rate", "2000") // so that much is under way when something is killed
	var r demo.Result
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || !r.OK {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	turnedAway := r.TurnedAway["unknown product"]
	if r.Lines != 64 || r.Again == 0 || turnedAway == 0 || r.Orders != r.Lines-r.Again-turnedAway {
		t.Errorf("%d lines, %d again, %d turned away, %d orders", r.Lines, r.Again, turnedAway, r.Orders)
	}
	if r.Committed == 0 || r.RolledBack["card declined"] == 0 || r.RolledBack["out of stock"] == 0 ||
		r.Rewarded == 0 || r.Cancelled["out of stock"] != 1 {
		t.Errorf("%d committed, rolled back %v, %d rewarded, cancelled %v", r.Committed, r.RolledBack, r.Rewarded, r.Cancelled)
	}
	if r.Recovered["coordinator"] == 0 || r.Recovered["payment"] == 0 || len(r.Recovered) != 2 || len(r.Died) > 0 ||
		r.Crashes > 2 { // fewer if the kill came first
		t.Errorf("recovered %v, died %v, %d crashes", r.Recovered, r.Died, r.Crashes)
	}
	if r.Suppressed < r.Again || r.Published-r.Suppressed != r.Handled || r.Written > r.Published {
		t.Errorf("%d again; messages: %d written, %d published, %d suppressed, %d handled",
			r.Again, r.Written, r.Published, r.Suppressed, r.Handled)
	}
}
