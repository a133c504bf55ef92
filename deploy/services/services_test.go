package services

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// worktree makes an empty one.
func worktree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "go.mod"), []byte("module github.com/amends-dev/amends\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestFind(t *testing.T) {
	root := worktree(t)
	st := &State{Services: map[Service]*Entry{
		MySQL: {Source: "native", Addr: "from-the-state"},
		Redis: {Source: "native", Addr: "from-the-state"},
		Kafka: {Source: "native", Missing: "java is not installed: install Java"},
	}}
	if err := st.Save(root); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string {
		return map[string]string{"AMENDS_MYSQL_DSN": "from-the-environment"}[name]
	}
	for _, c := range []struct {
		service        Service
		dir, addr, why string
	}{
		{MySQL, below, "from-the-environment", ""},
		{MySQL, "/", "from-the-environment", ""},
		{Redis, below, "from-the-state", ""},
		{Redis, "/", "", "in no work tree"},
		{Kafka, below, "", "install Java"},
		{Redis, worktree(t), "", "make services"},
	} {
		addr, why := Find(c.service, c.dir, getenv)
		if addr != c.addr || !strings.Contains(why, c.why) || (addr == "") != (why != "") {
			t.Errorf("%s from %s: %q, %q, want %q, %q", c.service, c.dir, addr, why, c.addr, c.why)
		}
	}
}

func TestStateIsPrivateAndGoneWhenEmpty(t *testing.T) {
	root := worktree(t)
	st := &State{Services: map[Service]*Entry{Redis: {Source: "native"}}}
	if err := st.Save(root); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(stateFile(root)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: the file holds a password", info.Mode(), err)
	}
	delete(st.Services, Redis)
	for range 2 {
		if err := st.Save(root); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(stateFile(root)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a state of nothing leaves a file: %v", err)
	}
	if err := os.WriteFile(stateFile(root), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root); err == nil || !strings.Contains(err.Error(), "delete the file") {
		t.Errorf("a broken state: %v", err)
	}
}

// sleeper is a process of ours that does nothing.
func sleeper(t *testing.T) *Process {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Process{Service: Redis, Dir: t.TempDir(), PID: cmd.Process.Pid, Born: born(cmd.Process.Pid)}
	if err := cmd.Process.Release(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	return p
}

func TestProcessOfAnotherBirthIsNotTouched(t *testing.T) {
	p := sleeper(t)
	other := *p
	other.Born = "another time" // its PID was given to p since
	if other.Alive() {
		t.Error("a process of the same PID is taken for the one that ended")
	}
	if err := errors.Join(other.Stop(), other.Kill(), other.Pause()); err != nil {
		t.Error(err)
	}
	if !p.Alive() {
		t.Fatal("a process that we did not start was ended")
	}
	if err := p.Stop(); err != nil || p.Alive() {
		t.Errorf("stop: %v, alive %v", err, p.Alive())
	}
	if syscall.Kill(p.PID, 0) == nil {
		t.Error("a zombie is left")
	}
}

func TestStopEndsAPausedProcess(t *testing.T) {
	p := sleeper(t)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if !p.Alive() {
		t.Error("a paused process counts as ended")
	}
	if err := p.Remove(); err == nil {
		t.Error("removed the data of a process that runs")
	}
	begin := time.Now()
	if err := p.Stop(); err != nil || p.Alive() || time.Since(begin) > stopTime/2 {
		t.Errorf("stop: %v after %v", err, time.Since(begin))
	}
}

// TestSweepEndsWhatAKilledTestLeft runs the server of a test that is killed,
// and one of a test that goes on.
func TestSweepEndsWhatAKilledTestLeft(t *testing.T) {
	root := worktree(t)
	test := sleeper(t)
	var servers []*Process
	for _, owner := range []*Process{test, {PID: os.Getpid(), Born: born(os.Getpid())}} {
		s := sleeper(t)
		dir, err := newDir(Redis)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		s.Dir = dir
		text, err := json.Marshal(owned{Process: s, Owner: owner.PID, Born: owner.Born})
		if err == nil {
			err = errors.Join(os.MkdirAll(ownFolder(root), 0o700), os.WriteFile(ownFile(root, s), text, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
	}
	if n, err := Sweep(root); n != 0 || err != nil || !servers[0].Alive() || !servers[1].Alive() {
		t.Errorf("swept %d of tests that run: %v", n, err)
	}
	if err := test.Kill(); err != nil {
		t.Fatal(err)
	}
	if n, err := Sweep(root); n != 1 || err != nil || servers[0].Alive() || !servers[1].Alive() {
		t.Errorf("swept %d after one test was killed, want 1: %v", n, err)
	}
	if _, err := os.Stat(servers[0].Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its data stays: %v", err)
	}
}

// TestForgottenIsNotSwept keeps the data of a server for people.
func TestForgottenIsNotSwept(t *testing.T) {
	root := worktree(t)
	owner, s := sleeper(t), sleeper(t)
	dir, err := newDir(Redis)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.Dir = dir
	text, err := json.Marshal(owned{Process: s, Owner: owner.PID, Born: owner.Born})
	if err == nil {
		err = errors.Join(os.MkdirAll(ownFolder(root), 0o700), os.WriteFile(ownFile(root, s), text, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := Forget(root, s); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("forgot a server that runs: %v", err)
	}
	if err := errors.Join(s.Kill(), Forget(root, s), owner.Kill()); err != nil {
		t.Fatal(err)
	}
	if n, err := Sweep(root); n != 0 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("its data is gone: %v", err)
	}
}

func TestRemoveDeletesOnlyItsOwn(t *testing.T) {
	if err := (&Process{Dir: t.TempDir()}).Remove(); err == nil || !strings.Contains(err.Error(), "not made here") {
		t.Errorf("removed a folder that was not made here: %v", err)
	}
	dir, err := newDir(Redis)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Process{Dir: dir}).Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it stays: %v", err)
	}
}

func TestStartShowsTheLogOfWhatEnds(t *testing.T) {
	dir := t.TempDir()
	p := &Process{Service: Redis, Addr: "127.0.0.1:1", Dir: dir, Path: "/bin/sh", Args: []string{"-c", "echo no more memory; exit 3"}}
	err := p.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ended at once") || !strings.Contains(err.Error(), "no more memory") {
		t.Errorf("want the end of the log in %v", err)
	}
	if p.Alive() {
		t.Error("it is alive")
	}
}

func TestMissingProgramsSayWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("JAVA_HOME", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := findJava(t.Context())
	_, err2 := findMaven()
	_, err3 := find([]string{"redis-tools"}, "apt-get install redis-tools", "redis-server-of-nobody")
	for _, err := range []error{err, err2, err3} {
		var none *MissingError
		if !errors.As(err, &none) || len(none.Packages) == 0 || !strings.Contains(err.Error(), "apt-get install") {
			t.Errorf("%v does not say what to install", err)
		}
	}
	if _, err := NewKafka(t.Context()); err == nil {
		t.Error("Kafka without Java")
	}
}

func TestOldJavaIsRefused(t *testing.T) {
	home := t.TempDir()
	t.Setenv("JAVA_HOME", home)
	if err := os.Mkdir(filepath.Join(home, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		`openjdk version "11.0.2" 2019-01-15`: "version 11", `java version "1.8.0_292"`: "version 1",
		"no Java at all": "install Java 17", `openjdk version "21" 2023-09-19`: "",
	} {
		script := "#!/bin/sh\necho '" + version + "' >&2\n"
		if err := os.WriteFile(filepath.Join(home, "bin", "java"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := findJava(t.Context())
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", version, err, want)
		}
	}
}

func TestPortsAreNotEphemeral(t *testing.T) {
	for range 20 {
		port, err := FreePort()
		if err != nil || port < 20000 || port > 32767 {
			t.Fatal(port, err)
		}
	}
}
