package main_test

import (
	"bufio"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/amends-dev/amends/sdk"
)

// TestWatchGoesOnAfterARestart watches a transaction that waits for its
// participant while the coordinator is killed and comes back.
func TestWatchGoesOnAfterARestart(t *testing.T) {
	dir, addr := t.TempDir(), freePort(t, rand.New(rand.NewPCG(seed(t), 0)))
	args := []string{"serve", "--data-dir", dir, "--listen", addr}
	p := start(t, args...)
	p.waitFor(t, `^amends: serving on `)
	conn := connect(t, addr)
	if _, err := begin(t.Context(), sdk.NewClient(conn, nil), "watched", false); err != nil {
		t.Fatal(err)
	}
	watch := exec.CommandContext(t.Context(), binary, "tx", "watch", "watched", "--addr", addr)
	stdout, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatal("watch printed nothing")
	}
	p.kill()
	start(t, args...).waitFor(t, `^amends: serving on `)
	openBank(t, conn)
	seen := []string{lines.Text()}
	for lines.Scan() {
		seen = append(seen, lines.Text())
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("watch: %v", err)
	}
	if all := strings.Join(seen, "\n"); strings.Count(all, "started") != 1 || !strings.Contains(seen[len(seen)-1], "COMMITTED") {
		t.Errorf("want one start and the commit at the end, got\n%s", all)
	}
}
