package services

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeDebian puts scripts in the place of Debian's tools: an archive whose list
// must be renewed first, when stale. It answers with the file of their calls.
func fakeDebian(t *testing.T, stale bool) (calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	fresh := filepath.Join(dir, "fresh")
	if !stale {
		if err := os.WriteFile(fresh, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range map[string]string{
		"apt-get": `case "$*" in
*update*) touch ` + fresh + `;;
*download*) [ -e ` + fresh + ` ] || { echo 404 Not Found; exit 100; }; touch one.deb two.deb;; esac`,
		"apt-cache": `printf 'nats-server\n  Depends: libc6\n  Depends: <erlang-virtual>\nlibc6\nerlang-base\n'`,
		// dpkg-deb --extract FILE FOLDER
		"dpkg-deb": `mkdir -p "$3/usr/sbin"; printf '#!/bin/sh\n' >"$3/usr/sbin/nats-server"; chmod +x "$3/usr/sbin/nats-server"`,
	} {
		text := "#!/bin/sh\necho " + name + ` "$*" >>` + calls + "\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	return calls
}

func TestInstallUnpacksOnce(t *testing.T) {
	if _, err := find(nil, "", "nats-server"); err == nil {
		t.Log("NATS is installed here: there is nothing to unpack")
		return
	}
	calls := fakeDebian(t, os.Geteuid() == 0) // only root may renew a list
	for range 2 {
		if err := Install(t.Context(), NATS, t.Logf); err != nil {
			t.Fatal(err)
		}
	}
	said, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	n := strings.Count(string(said), "dpkg-deb")
	if n != 2 || !strings.Contains(string(said), "download erlang-base nats-server\n") {
		t.Errorf("%d packages unpacked, want 2, once:\n%s", n, said)
	}
	dir, err := debianFolder(NATS)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "unpacking-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestInstallThatFailsLeavesNothing(t *testing.T) {
	if _, err := find(nil, "", "nats-server"); err == nil {
		t.Log("NATS is installed here: there is nothing to unpack")
		return
	}
	fakeDebian(t, false)
	tools, _, _ := strings.Cut(os.Getenv("PATH"), ":")
	if err := os.WriteFile(filepath.Join(tools, "dpkg-deb"), []byte("#!/bin/sh\necho no space; exit 2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := Install(t.Context(), NATS, t.Logf)
	if err == nil || !strings.Contains(err.Error(), "no space") || !strings.Contains(err.Error(), "install NATS") {
		t.Errorf("%v: want the reason and the fix", err)
	}
	var none *MissingError
	if _, err := NewNATS(); !errors.As(err, &none) {
		t.Errorf("half of a package is taken for a server: %v", err)
	}
}

func TestHelperEndsWithItsServer(t *testing.T) {
	helper := &Process{Service: RabbitMQ, Dir: t.TempDir(), Path: "/bin/sh", Args: []string{"-c", "exec sleep 60"}}
	p := &Process{Service: RabbitMQ, Dir: t.TempDir(), Path: "/bin/sh", Args: []string{"-c", "exec sleep 60"}, Helper: helper}
	for _, end := range []func() error{p.Kill, p.Stop} {
		if err := p.launch(); err != nil {
			t.Fatal(err)
		}
		if !p.Alive() || !helper.Alive() {
			t.Fatal("they do not run")
		}
		if err := end(); err != nil || p.Alive() || helper.Alive() {
			t.Errorf("%v; the server runs: %v, its helper: %v", err, p.Alive(), helper.Alive())
		}
	}
	if err := p.launch(); err != nil {
		t.Fatal(err)
	}
	pid := p.PID
	if err := (&Process{PID: pid, Born: p.Born}).Kill(); err != nil { // it dies by itself
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil || helper.Alive() {
		t.Errorf("the helper of a server that died runs on: %v", err)
	}
}
