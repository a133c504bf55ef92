package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amends-dev/amends/deploy/services"
)

// redisTool is a tool for Redis alone, in a work tree of its own and without Docker.
func redisTool(t *testing.T) (*tool, *strings.Builder) {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "go.mod"), []byte("module github.com/amends-dev/amends\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := new(strings.Builder)
	tl := newTool(root, out)
	tl.which = []services.Service{services.Redis}
	tl.getenv = func(string) string { return "" }
	fakeDocker(t, "echo no engine here; exit 1")
	t.Cleanup(func() {
		if err := tl.down(context.Background()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(out)
		}
	})
	return tl, out
}

// needRedis skips, or fails where services are required.
func needRedis(t *testing.T) {
	t.Helper()
	if err := services.Check(t.Context(), services.Redis); err != nil {
		if os.Getenv(services.RequireEnv) == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func (t *tool) process(tb testing.TB) *services.Process {
	tb.Helper()
	st, err := services.Load(t.root)
	if err != nil {
		tb.Fatal(err)
	}
	if e := st.Services[services.Redis]; e != nil {
		return e.Process
	}
	return nil
}

func TestUpIsIdempotentAndDownRemoves(t *testing.T) {
	needRedis(t)
	tl, out := redisTool(t)
	if err := tl.run("up", nil); err != nil {
		t.Fatal(err)
	}
	first := tl.process(t)
	if err := tl.run("up", nil); err != nil || tl.process(t).PID != first.PID {
		t.Errorf("the second up started another: %v", err)
	}
	if err := tl.run("restart", []string{"-kill", "redis"}); err != nil {
		t.Fatal(err)
	}
	second := tl.process(t)
	if second.PID == first.PID || second.Addr != first.Addr || !second.Alive() {
		t.Errorf("after a restart: %+v, was %+v", second, first)
	}
	if err := second.Kill(); err != nil { // nobody's fault
		t.Fatal(err)
	}
	if err := tl.run("up", nil); err != nil || !tl.process(t).Alive() {
		t.Errorf("up after the server died: %v", err)
	}
	third := tl.process(t)
	if _, err := os.Stat(second.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data of the one that died stays: %v", err)
	}
	for range 2 {
		if err := tl.run("down", nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(third.Dir); third.Alive() || !errors.Is(err, os.ErrNotExist) || tl.process(t) != nil {
		t.Errorf("after down: alive %v, folder %v", third.Alive(), err)
	}
	if err := tl.run("restart", []string{"redis"}); err == nil {
		t.Error("restarted what is down")
	}
	if !strings.Contains(out.String(), "no engine here") {
		t.Errorf("it does not say why Docker was passed over:\n%s", out)
	}
}

func TestWithTakesDownWhatItBroughtUp(t *testing.T) {
	needRedis(t)
	tl, _ := redisTool(t)
	file := filepath.Join(tl.root, "addr")
	script := []string{"sh", "-c", `printf %s "$AMENDS_REDIS_ADDR" >` + file + "; exit 7"}
	err := tl.run("with", script)
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exitCode(err, new(strings.Builder)) != 7 {
		t.Errorf("the command's exit code is lost: %v", err)
	}
	addr, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(addr), "127.0.0.1:") {
		t.Errorf("AMENDS_REDIS_ADDR was %q: %v", addr, err)
	}
	if services.Ping(t.Context(), services.Redis, string(addr)) == nil || tl.process(t) != nil {
		t.Error("it runs after a command that failed")
	}

	if err := tl.run("up", nil); err != nil {
		t.Fatal(err)
	}
	if err := tl.run("with", []string{"true"}); err != nil {
		t.Error(err)
	}
	if p := tl.process(t); p == nil || !p.Alive() {
		t.Error("with took down what make services had brought up")
	}
}

func TestTheLastUserTakesDown(t *testing.T) {
	needRedis(t)
	tl, _ := redisTool(t)
	release, err := tl.use()
	if err != nil {
		t.Fatal(err)
	}
	if err := tl.run("with", []string{"true"}); err != nil {
		t.Fatal(err)
	}
	if p := tl.process(t); p == nil || !p.Alive() {
		t.Error("one command took the services from under another")
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if tl.process(t) != nil {
		t.Error("the last one left them running")
	}
}

func TestSignalEndsTheCommandAndTheServices(t *testing.T) {
	needRedis(t)
	tl, _ := redisTool(t)
	file := filepath.Join(tl.root, "running")
	go func() { // tells the test's own process to end, as Ctrl-C does, once the command runs
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(file); err == nil {
				syscall.Kill(os.Getpid(), syscall.SIGTERM)
				return
			}
		}
	}()
	begin := time.Now()
	err := tl.run("with", []string{"sh", "-c", "touch " + file + "; sleep 60 & wait"})
	if err == nil || time.Since(begin) > 30*time.Second {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	if tl.process(t) != nil {
		t.Error("the services run after a signal")
	}
}

func TestMissingService(t *testing.T) {
	tl, out := redisTool(t)
	tl.which = []services.Service{services.Kafka}
	t.Setenv("JAVA_HOME", filepath.Join(t.TempDir(), "nothing"))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	tl.getenv = func(name string) string { return map[string]string{"AMENDS_SERVICES_INSTALL": "no"}[name] }
	err := tl.run("up", nil)
	if err == nil || !strings.Contains(err.Error(), "no Kafka") || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("make services without Java: %v", err)
	}
	if err := tl.run("with", []string{"true"}); err != nil {
		t.Errorf("a missing service is no failure for tests: %v", err)
	}
	tl.getenv = func(name string) string {
		return map[string]string{"AMENDS_SERVICES_INSTALL": "no", services.RequireEnv: "1"}[name]
	}
	if err := tl.run("with", []string{"touch", filepath.Join(tl.root, "ran")}); err == nil {
		t.Error("a missing service is no failure though services are required")
	}
	if _, err := os.Stat(filepath.Join(tl.root, "ran")); err == nil {
		t.Error("the command ran without a required service")
	}
	if !strings.Contains(out.String(), "Kafka: NOT THERE") {
		t.Errorf("it does not say what is missing:\n%s", out)
	}
}

func TestEnvironmentComesFirst(t *testing.T) {
	tl, _ := redisTool(t)
	addr := fakeRedis(t, "127.0.0.1:0")
	tl.getenv = func(name string) string { return map[string]string{"AMENDS_REDIS_ADDR": addr}[name] }
	if err := tl.run("up", nil); err != nil || tl.process(t) != nil {
		t.Errorf("it started one beside that of the environment: %v", err)
	}
	tl.getenv = func(name string) string { return map[string]string{"AMENDS_REDIS_ADDR": "127.0.0.1:1"}[name] }
	if err := tl.run("up", nil); err == nil || !strings.Contains(err.Error(), "AMENDS_REDIS_ADDR") {
		t.Errorf("the environment names a server that is not there: %v", err)
	}
}

// TestDocker has a docker that writes down how it is called, and whose
// container is a listener of this test's.
func TestDocker(t *testing.T) {
	tl, _ := redisTool(t)
	dir := t.TempDir()
	fakeDocker(t, `cd `+dir+`
echo "$AMENDS_MYSQL_PASSWORD $*" >>calls
case "$*" in *" up "*) echo $AMENDS_REDIS_PORT >port.new; mv port.new port; while [ ! -e ready ]; do sleep 0.01; done;; esac`)
	go func() {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if port, err := os.ReadFile(filepath.Join(dir, "port")); err == nil {
				fakeRedis(t, "127.0.0.1:"+strings.TrimSpace(string(port)))
				break
			}
		}
		os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600)
	}()
	if err := tl.run("up", nil); err != nil {
		t.Fatal(err)
	}
	st, err := services.Load(tl.root)
	if err != nil || st.Services[services.Redis].Source != sourceDocker || st.Project == "" {
		t.Fatalf("state %+v, %v", st, err)
	}
	if err := tl.run("down", nil); err != nil || len(st.Services) != 1 {
		t.Fatal(err)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	files := " compose --project-name " + st.Project + " --file docker-compose.yml --file .ci/services/compose.yml "
	for _, want := range []string{files + "up --detach --wait redis\n", "none" + files + "down --volumes\n"} {
		if !strings.Contains(string(calls), want) {
			t.Errorf("want %q in\n%s", want, calls)
		}
	}
}

func TestDockerThatFailsIsPassedOver(t *testing.T) {
	needRedis(t)
	tl, out := redisTool(t)
	fakeDocker(t, `case "$*" in *" up "*) echo no such image; exit 1;; esac`)
	if err := tl.run("up", nil); err != nil || tl.process(t) == nil {
		t.Errorf("it did not go on without Docker: %v", err)
	}
	if !strings.Contains(out.String(), "no such image") {
		t.Errorf("it does not say why:\n%s", out)
	}
}

// fakeDocker puts a script in the place of docker.
func fakeDocker(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// fakeRedis answers PONG to everything, until the test ends.
func fakeRedis(t *testing.T, addr string) string {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Error(err)
		return ""
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("+PONG\r\n"))
			c.Close()
		}
	}()
	return l.Addr().String()
}

// TestScratch: a command among services has a folder in memory where there is
// room for one, and nothing of it is left; "disk" goes without.
func TestScratch(t *testing.T) {
	place, err := newScratch(t.Context(), func(string) string { return "disk" })
	if err != nil || place.dir != "" || len(place.env) > 0 {
		t.Errorf("disk: %+v, %v", place, err)
	}
	tl, _ := redisTool(t)
	tl.which = nil
	seen := filepath.Join(t.TempDir(), "seen")
	before := os.Getenv("TMPDIR")
	script := `echo "$TMPDIR" >` + seen + `; case $TMPDIR in ` + memoryFolder + `/*) echo left >"$TMPDIR/left" ;; esac`
	if err := tl.with([]string{"sh", "-c", script}); err != nil {
		t.Fatal(err)
	}
	if got := os.Getenv("TMPDIR"); got != before {
		t.Errorf("TMPDIR is %q afterwards, want %q", got, before)
	}
	text, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	dir := strings.TrimSpace(string(text))
	if dir == before { // on disk
		return
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(dir, memoryFolder) {
		t.Errorf("the command's folder was %q, and there is still %v", dir, err)
	}
	if roomIn(t.Context(), filepath.Join(dir, "gone")) != 0 || runsPrograms(t.Context(), filepath.Join(dir, "gone")) {
		t.Error("a folder that is not there has room, or runs programs")
	}
}

func TestUsage(t *testing.T) {
	tl, _ := redisTool(t)
	for _, args := range [][]string{{"with"}, {"sideways"}, {"up", "now"}, {"restart"}, {"restart", "-kill"}, {"restart", "-x", "redis"}} {
		if err := tl.run(args[0], args[1:]); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}
