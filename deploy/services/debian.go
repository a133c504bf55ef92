package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// debianFolder is where the packages of a service are unpacked, beside Kafka's
// jars. They are not installed: Debian's rabbitmq-server and nats-server would
// bring services of the system, which start by themselves, and users.
func debianFolder(s Service) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("services: no folder to keep Debian's packages in: %w", err)
	}
	return filepath.Join(cache, "amends", "debian-"+string(s)), nil
}

// Install unpacks what RabbitMQ or NATS need into a folder of the user's cache,
// once for all work trees, unless they are installed; it calls say before it
// does. It needs no root, but a list of packages that is not older than the
// archive, which only root may renew. The error is a MissingError where there
// is no apt-get.
func Install(ctx context.Context, s Service, say func(format string, args ...any)) error {
	var none *MissingError
	if err := Check(ctx, s); !errors.As(err, &none) {
		return err
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return none
	}
	dir, err := debianFolder(s)
	if err != nil {
		return err
	}
	say("unpacking Debian's %s into %s (once)", none.Packages[0], dir)
	unlock, err := lockFolder(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer unlock()
	if Check(ctx, s) == nil { // another command was faster
		return nil
	}
	if err := unpack(ctx, apt, none.Packages[0], dir); err != nil {
		return fmt.Errorf("services: %s: %w; or %s", s, err, none.Fix)
	}
	return Check(ctx, s)
}

// unpack fills dir, which is there only when it is complete.
func unpack(ctx context.Context, apt, name, dir string) (err error) {
	work, err := os.MkdirTemp(filepath.Dir(dir), "unpacking-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := download(ctx, apt, name, work); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	for _, deb := range debs {
		if _, err := output(ctx, work, "dpkg-deb", "--extract", deb, root); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil { // of another version, or broken
		return err
	}
	return os.Rename(root, dir)
}

// download fetches a package, and the parts of Erlang that it depends on. The
// usual reason of a failure is a list of packages that is older than the archive.
func download(ctx context.Context, apt, name, dir string) error {
	try := func() error {
		names, err := closure(ctx, name)
		if err != nil {
			return err
		}
		_, err = output(ctx, dir, apt, append([]string{"-o", "APT::Sandbox::User=", "download"}, names...)...)
		return err
	}
	err := try()
	if err == nil || os.Geteuid() != 0 {
		return err
	}
	if _, err := output(ctx, dir, apt, "-o", "DPkg::Lock::Timeout=300", "update", "-qq"); err != nil {
		return err
	}
	return try()
}

// closure is the package with what it needs of Erlang, whose parts are packages
// of their own. The C libraries of the rest are on every Debian, but for one.
func closure(ctx context.Context, name string) ([]string, error) {
	names := []string{name}
	out, err := output(ctx, ".", "apt-cache", "depends", "--recurse", "--important", name)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) { // those that are described begin their line
		if p := strings.TrimSpace(line); strings.HasPrefix(line, "erlang-") || p == "libsctp1" && strings.HasPrefix(line, p) {
			names = append(names, p)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// output runs a command in a folder; its error says what it printed.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w:\n%s", filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// lockFolder lets one process at a time fill the folder, which it makes.
func lockFolder(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "debian.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("services: %s: %w", f.Name(), err), f.Close())
	}
	return func() { f.Close() }, nil // which unlocks it
}
