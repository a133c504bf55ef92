package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// binary is the program, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "amends-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "amends")
	build := exec.Command("go", "build", "-buildvcs=false", "-tags", "amends_invariants", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience bounds every wait for something that should happen soon.
const patience = time.Minute

// result is how a command ended.
type result struct {
	code           int
	stdout, stderr string
}

// environ is our environment, in which only the given variables name a database or hold a token.
func environ(extra ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "AMENDS_MYSQL_DSN=") || strings.HasPrefix(v, "AMENDS_TOKEN=")
	})
	return append(env, extra...)
}

// amends runs the program to its end.
func amends(t *testing.T, args ...string) result {
	t.Helper()
	return amendsIn(t, environ(), args...)
}

func amendsIn(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("amends %v: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok is amends that must succeed; it returns what it printed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := amends(t, args...)
	if r.code != 0 {
		t.Fatalf("amends %v: exit code %d\n%s", args, r.code, r.stderr)
	}
	return r.stdout
}

// process is a running `amends` whose standard error is read line by line.
type process struct {
	cmd   *exec.Cmd
	lines chan string // closed at the end
	mu    sync.Mutex
	said  strings.Builder
}

// start starts a program that keeps running, and ends it after the test.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startIn(t, environ(), args...)
}

func startIn(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, args...), lines: make(chan string, 1024)}
	p.cmd.Env = env
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(stderr)
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.kill()
		}
		if t.Failed() {
			t.Logf("amends %v said:\n%s", args, p.everything())
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	defer close(p.lines)
	for s := bufio.NewScanner(r); s.Scan(); {
		p.mu.Lock()
		p.said.WriteString(s.Text() + "\n")
		p.mu.Unlock()
		select {
		case p.lines <- s.Text():
		default: // nobody waits for lines any more
		}
	}
}

func (p *process) everything() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// waitFor returns the submatches of the first line that matches.
func (p *process) waitFor(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(patience)
	for {
		select {
		case line, open := <-p.lines:
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
			if !open {
				t.Fatalf("ended without saying %q; it said:\n%s", pattern, p.everything())
			}
		case <-late:
			t.Fatalf("did not say %q within %v; it said:\n%s", pattern, patience, p.everything())
		}
	}
}

// kill is kill -9, and waits until the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	for range p.lines {      // Wait closes the pipe: read all of it first
	}
	_ = p.cmd.Wait() // says that it was killed
}

// stop asks the process to end gracefully and returns its exit code.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	for range p.lines {
	}
	_ = p.cmd.Wait() // the exit code tells
	return p.cmd.ProcessState.ExitCode()
}

// serve starts a coordinator and returns it with its address.
func serve(t *testing.T, dir string) (*process, string) {
	t.Helper()
	p := start(t, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
	return p, p.waitFor(t, `^amends: serving on (127\.0\.0\.1:\d+) \(data in .+\)$`)[1]
}

// connect makes a connection that looks often whether its server is back.
func connect(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	often := grpc.ConnectParams{MinConnectTimeout: 5 * time.Second,
		Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond}}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(often))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// freePort finds a port below the ephemeral range, so that it is still free for
// a process that is restarted: no connection of ours gets it meanwhile.
func freePort(t *testing.T, rnd *rand.Rand) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rnd.IntN(12000)))
		lis, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := lis.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no port below the ephemeral range is free")
	return ""
}

// seed is AMENDS_SEED or a new one, and is logged.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv("AMENDS_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("AMENDS_SEED: %v", err)
		}
	}
	t.Logf("AMENDS_SEED=%d", n)
	return n
}

// eventually polls until what holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
