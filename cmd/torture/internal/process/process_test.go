package process

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// start runs a shell's script until the test ends, or stop is called.
func start(t *testing.T, script string) (p *Process, stop func()) {
	t.Helper()
	p = New(Config{
		Name: "script", Path: "/bin/sh", Args: []string{"-c", script}, Log: filepath.Join(t.TempDir(), "log"),
		Ready: regexp.MustCompile(`^ready`),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return p.Run(ctx) })
	stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return p, stop
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("it never comes true that %s", what)
		}
	}
}

func ready(t *testing.T, p *Process, after int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.AwaitReady(ctx, after); err != nil {
		t.Fatal(err)
	}
}

const waits = `echo ready; exec sleep 1000`

func TestKilledProcessComesBack(t *testing.T) {
	p, stop := start(t, waits)
	ready(t, p, 0)
	pid, done := p.Kill()
	if !done {
		t.Fatal("nothing was killed")
	}
	ready(t, p, 1)
	if life, up := p.Up(); life != 2 || !up {
		t.Errorf("life %d, up %v, want the second one up", life, up)
	}
	if exits := p.Exits(); len(exits) > 0 {
		t.Errorf("a kill counts as an exit that nobody asked for: %v", exits)
	}
	stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("process %d is still there", pid)
	}
	if _, up := p.Up(); up {
		t.Error("it is up after its end")
	}
}

func TestUnaskedExitIsTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "go")
	p, _ := start(t, `echo ready; while [ ! -e `+file+` ]; do sleep 0.01; done; exit 3`)
	ready(t, p, 0)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the exit is told", func() bool { return len(p.Exits()) > 0 })
}

func TestHeldProcessStaysAway(t *testing.T) {
	p, _ := start(t, `trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done`)
	ready(t, p, 0)
	p.Hold()
	if _, done := p.Terminate(); !done {
		t.Fatal("nothing was told to end")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if code, err := p.AwaitExit(ctx); err != nil || code != 7 {
		t.Fatalf("exit code %d, %v, want 7", code, err)
	}
	if life, up := p.Up(); life != 1 || up {
		t.Errorf("life %d, up %v, though it is held", life, up)
	}
	p.Release()
	ready(t, p, 1)
}

func TestStoppedProcessEnds(t *testing.T) {
	p, stop := start(t, waits)
	ready(t, p, 0)
	if !p.Pause() {
		t.Fatal("nothing was stopped")
	}
	if _, up := p.Up(); up {
		t.Error("a stopped process counts as up")
	}
	stop() // returns: SIGTERM alone would wait for SIGCONT
}
