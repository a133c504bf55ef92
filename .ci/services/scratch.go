package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	memoryFolder = "/dev/shm" // Linux keeps what is here in memory
	memoryNeeds  = 8 << 20    // KiB free, there and of the machine's memory: more than a whole run takes
)

// scratch is where the files of a command and of its services go. Tests sync to
// disk all the time, and most of that time they wait; in memory they do not, and
// what outlives kill -9 is the same. The zero scratch is the usual place.
type scratch struct {
	dir  string   // of the command
	temp string   // of services
	env  []string // that leads the command to dir
}

// newScratch makes one in memory, where there is plenty of it, unless
// AMENDS_SCRATCH says "disk".
func newScratch(ctx context.Context, getenv func(string) string) (scratch, error) {
	if getenv("AMENDS_SCRATCH") == "disk" || min(roomIn(ctx, memoryFolder), available()) < memoryNeeds {
		return scratch{}, nil
	}
	dir, err := os.MkdirTemp(memoryFolder, "amends-")
	if err != nil {
		return scratch{}, fmt.Errorf("services: AMENDS_SCRATCH=disk goes without it: %w", err)
	}
	if !runsPrograms(ctx, dir) {
		return scratch{}, os.Remove(dir)
	}
	// What the go command builds is large, and it syncs none of it.
	return scratch{dir, memoryFolder, []string{"GOTMPDIR=" + os.TempDir(), "TMPDIR=" + dir}}, nil
}

// during leads what f starts to the scratch.
func (s scratch) during(f func() error) (err error) {
	if s.temp == "" {
		return f()
	}
	before, was := os.LookupEnv("TMPDIR")
	if err := os.Setenv("TMPDIR", s.temp); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	defer func() {
		if was {
			err = errors.Join(err, os.Setenv("TMPDIR", before))
		} else {
			err = errors.Join(err, os.Unsetenv("TMPDIR"))
		}
	}()
	return f()
}

// remove removes what the command left.
func (s scratch) remove() error {
	if s.dir == "" {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	return nil
}

// roomIn is how much a folder's file system can take, in KiB; 0 where there is no such folder.
func roomIn(ctx context.Context, folder string) (kib int64) {
	out, err := exec.CommandContext(ctx, "df", "-Pk", folder).Output()
	if err != nil {
		return 0
	}
	_, line, _ := strings.Cut(string(out), "\n")
	if f := strings.Fields(line); len(f) > 3 {
		return number(f[3])
	}
	return 0
}

// available is how much memory the machine has left, in KiB; 0 where it does not say.
func available() (kib int64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "MemAvailable:")
	return number(rest)
}

// number is the one that a text begins with, 0 where there is none.
func number(text string) (n int64) {
	if _, err := fmt.Sscan(text, &n); err != nil {
		return 0
	}
	return n
}

// runsPrograms tells whether programs may run in a folder: some systems forbid it.
func runsPrograms(ctx context.Context, dir string) bool {
	program := filepath.Join(dir, "true")
	err := os.WriteFile(program, []byte("#!/bin/sh\nexit 0\n"), 0o700) //nolint:gosec // a program
	return err == nil && errors.Join(exec.CommandContext(ctx, program).Run(), os.Remove(program)) == nil
}
