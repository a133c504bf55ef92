// Package skew builds programs whose wall clock can be set off while they run,
// and sets it off. The code of Amends knows nothing of it: an overlay of the go
// command (go help build, -overlay) changes what time.Now of the standard library
// says. Monotonic readings stay right, and with them timers and what is measured,
// as under a clock that somebody sets.
package skew

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// env names the file that says how far a program's clock is off.
const env = "AMENDS_TORTURE_SKEW"

// The change of time.Now, in a file of the Go distribution that holds it once.
const (
	nowFile = "time/time.go"
	nowOld  = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	nowNew  = nowOld + "\tsec, nsec = skewed(sec, nsec)\n"
)

// added are files that the Go distribution does not have.
var added = map[string]string{
	"time/amends_skew.go": `package time

import "sync/atomic"

var skew atomic.Int64 // nanoseconds

// SetSkew sets the wall clock off.
func SetSkew(d Duration) { skew.Store(int64(d)) }

func skewed(sec int64, nsec int32) (int64, int32) {
	n := int64(nsec) + skew.Load()
	sec += n / 1e9
	if n %= 1e9; n < 0 {
		n += 1e9
		sec--
	}
	return sec, int32(n)
}
`,
	"os/amends_skew.go": `package os

import "time"

func init() {
	file := Getenv("` + env + `")
	if file == "" {
		return
	}
	read := func() {
		text, err := ReadFile(file)
		if err != nil {
			return // it stays as it is
		}
		if d, err := time.ParseDuration(string(text)); err == nil {
			time.SetSkew(d)
		}
	}
	read()
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			read()
		}
	}()
}
`,
}

// Build builds main packages of the module around root into dir, where the
// changed files are kept, too. The first time takes as long as building the
// standard library and every dependency does; then they are in Go's cache.
func Build(ctx context.Context, root, dir string, packages ...string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	file, err := overlay(ctx, dir)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-overlay", file, "-o", dir + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // packages of this module
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("skew: go build: %w\n%s", err, out)
	}
	return nil
}

// overlay writes the changed files and what names them for the go command.
func overlay(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("skew: go env GOROOT: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src")
	text, err := os.ReadFile(filepath.Join(src, filepath.FromSlash(nowFile))) //nolint:gosec // of the Go distribution
	if err != nil {
		return "", fmt.Errorf("skew: %w", err)
	}
	if strings.Count(string(text), nowOld) != 1 {
		return "", fmt.Errorf("skew: %s of this Go version does not hold %q once: it needs another change", nowFile, nowOld)
	}
	files := map[string]string{nowFile: strings.Replace(string(text), nowOld, nowNew, 1)}
	for name, text := range added {
		files[name] = text
	}
	replace := map[string]string{}
	for name, text := range files {
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(src, filepath.FromSlash(name))] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, list, 0o600)
}

// Clock is the wall clock of one process, over all its lives.
type Clock struct {
	file string

	mu  sync.Mutex
	off time.Duration
}

// NewClock returns a clock that is off by so much, and is kept in a file.
func NewClock(file string, off time.Duration) (*Clock, error) {
	c := &Clock{file: file}
	return c, c.Set(off)
}

// Env is for the process, whose program Build has built; any other ignores it.
func (c *Clock) Env() string { return env + "=" + c.file }

// Off is how far the clock is off.
func (c *Clock) Off() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.off
}

// Set has the clock step. The process notices within 20 ms of its running.
func (c *Clock) Set(off time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.file + ".next"
	if err := os.WriteFile(next, []byte(off.String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, c.file); err != nil { // nobody reads half of it
		return err
	}
	c.off = off
	return nil
}

// Check runs a program that Build has built, which is to print the time in
// microseconds since 1970, under a clock that is an hour ahead, and fails if
// what it prints is not.
func Check(ctx context.Context, dir, program string, args ...string) error {
	const ahead = time.Hour
	c, err := NewClock(filepath.Join(dir, "check.clock"), ahead)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // just built
	cmd.Env = append(os.Environ(), c.Env())
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("skew: %s: %w", program, err)
	}
	var micros int64
	if _, err := fmt.Sscan(string(out), &micros); err != nil {
		return fmt.Errorf("skew: %s printed %q: %w", program, out, err)
	}
	if d := time.Until(time.UnixMicro(micros)); d < ahead-time.Minute || d > ahead+time.Minute {
		return errors.New("skew: the clock of a program that was built for it cannot be set off: " + d.String() + " after an hour was asked for")
	}
	return nil
}
