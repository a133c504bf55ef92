package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal returns the two ends of a pseudo-terminal: the person's and the
// program's.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	var number, unlocked uint32
	for request, arg := range map[uintptr]*uint32{syscall.TIOCSPTLCK: &unlocked, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, person.Fd(), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Fatal(errno)
		}
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

// atTerminal runs the program at a terminal at which somebody types.
func atTerminal(t *testing.T, typed string, args ...string) result {
	t.Helper()
	person, program := openTerminal(t)
	if _, err := person.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ(), program, &stdout, &stderr
	_ = cmd.Run() // the exit code tells
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// TestAsksAtATerminal types reasons and confirmations.
func TestAsksAtATerminal(t *testing.T) {
	f := &fake{}
	addr := f.start(t)
	for _, c := range []struct {
		name, typed, args string
		code              int
		reason, says      string // reason: what was asked with; empty: nothing was
	}{
		{"reason", "  the disk was full\n", "tx pause g", 0, "the disk was full", "Reason, for the audit trail: "},
		{"none", "\n", "tx pause g", 2, "", "--reason is missing"},
		{"given", "", "tx pause g --reason r", 0, "r", ""},
		{"abandon", "why\ng\n", "tx abandon g", 0, "why", "Type g to go on: "},
		{"abandon another", "why\nh\n", "tx abandon g", 1, "", "nothing was done"},
		{"bulk", "why\nabandon\n", "bulk start abandon --unfinished", 0, "why", "Type abandon to go on: "},
		{"bulk without a word", "why\nyes\n", "bulk start abandon --unfinished", 1, "", "nothing was done"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := atTerminal(t, c.typed, append(strings.Fields(c.args), "--addr", addr)...)
			reason := ""
			for _, req := range f.requests() {
				reason += req.(interface{ GetReason() string }).GetReason()
			}
			if r.code != c.code || reason != c.reason || !strings.Contains(r.stderr, c.says) {
				t.Errorf("exit code %d, asked with reason %q, said %q; want %d, %q, %q", r.code, reason, r.stderr, c.code, c.reason, c.says)
			}
		})
	}
}
