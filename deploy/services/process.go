package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a server on loopback, with its data in a folder of its own. It
// outlives the program that starts it, and can be found again by its PID.
type Process struct {
	Service Service `json:"service"`
	// Addr is what clients are told: a DSN, an address, brokers.
	Addr string `json:"addr"`
	// Dir holds all that it writes, its output in the file "log".
	Dir string `json:"dir"`
	// Path and Args are the program and its arguments, Env is what its
	// environment has beside ours.
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	PID  int      `json:"pid"`
	// Born tells the process from a later one of the same PID.
	Born string `json:"born"`
	// Helper is a program that the server needs beside it: it starts before the
	// server and ends after it.
	Helper *Process `json:"helper,omitempty"`
}

const (
	startTime = 2 * time.Minute // a cold JVM takes 5 s, and 30 where all cores are busy
	stopTime  = 20 * time.Second
	pollTime  = 20 * time.Millisecond
)

// dirPrefix begins the name of every folder that Remove deletes.
const dirPrefix = "amends-"

func newDir(s Service) (string, error) {
	dir, err := os.MkdirTemp("", dirPrefix+string(s)+"-")
	if err != nil {
		return "", fmt.Errorf("services: %s: %w", s, err)
	}
	return dir, nil
}

// Start runs the server, also again after it ended: on the same address and
// data. It returns when the server answers, or with the end of its log.
func (p *Process) Start(ctx context.Context) error {
	if p.Alive() {
		return nil
	}
	if err := p.launch(); err != nil {
		return err
	}
	return p.await(ctx)
}

func (p *Process) launch() error {
	if p.Helper != nil && !p.Helper.Alive() {
		if err := p.Helper.launch(); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("services: %s: %w", p.Service, err)
	}
	defer log.Close()
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, log, log
	cmd.Env = append(append(os.Environ(), "TZ=UTC"), p.Env...)
	// A session of its own: Ctrl-C in the terminal is for the tests, who stop the servers afterwards.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("services: %s: %w", p.Service, err)
	}
	p.PID = cmd.Process.Pid
	p.Born = born(p.PID)
	if err := cmd.Process.Release(); err != nil {
		return fmt.Errorf("services: %s: %w", p.Service, err)
	}
	return nil
}

// await polls until the server answers, has ended, or took too long.
func (p *Process) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := Ping(ctx, p.Service, p.Addr)
		if err == nil {
			return nil
		}
		switch {
		case !p.Alive():
			err = errors.New("it ended at once")
		case ctx.Err() != nil:
			err = fmt.Errorf("it did not answer within %v: %w", startTime, err)
		default:
			time.Sleep(pollTime)
			continue
		}
		return errors.Join(fmt.Errorf("services: %s: %w; the end of %s:\n%s", p.Service, err, p.logFile(), p.tail()), p.Kill())
	}
}

func (p *Process) logFile() string { return filepath.Join(p.Dir, "log") }

// tail is the end of the log, for an error.
func (p *Process) tail() string {
	text, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// Alive tells whether this very process runs (or is paused).
func (p *Process) Alive() bool {
	if p.PID == 0 {
		return false
	}
	// Reaps it when it was our child, and has ended. When it was not, this is an error that means nothing.
	if got, err := syscall.Wait4(p.PID, nil, syscall.WNOHANG, nil); err == nil && got == p.PID {
		return false
	}
	return syscall.Kill(p.PID, 0) == nil && born(p.PID) == p.Born
}

// Stop asks the server to end and waits until it has; one that takes longer
// than 20 s is killed.
func (p *Process) Stop() error {
	if err := p.signal(syscall.SIGTERM, syscall.SIGCONT); err != nil {
		return err
	}
	p.ended(stopTime)
	return p.Kill() // of one that has ended only the helper is left
}

// Kill ends the server at once (SIGKILL) and waits until it has ended, and nothing
// of it holds its data any more.
func (p *Process) Kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !p.ended(stopTime) {
		return fmt.Errorf("services: %s: process %d outlives SIGKILL", p.Service, p.PID)
	}
	if err := p.unlocked(stopTime); err != nil {
		return err
	}
	if p.Helper != nil {
		return p.Helper.Kill()
	}
	return nil
}

// Pause stops the server where it is (SIGSTOP), connections and all.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (p *Process) Resume() error { return p.signal(syscall.SIGCONT) }

// signal sends to this very process, and to no later one of its PID.
func (p *Process) signal(sigs ...syscall.Signal) error {
	for _, sig := range sigs {
		if !p.Alive() {
			return nil
		}
		if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("services: %s: %v to process %d: %w", p.Service, sig, p.PID, err)
		}
	}
	return nil
}

func (p *Process) ended(within time.Duration) bool {
	for deadline := time.Now().Add(within); p.Alive(); time.Sleep(pollTime) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// Remove deletes the data of a server that has ended.
func (p *Process) Remove() error {
	if p.Alive() {
		return fmt.Errorf("services: %s: process %d runs: stop it first", p.Service, p.PID)
	}
	if !strings.HasPrefix(filepath.Base(p.Dir), dirPrefix) {
		return fmt.Errorf("services: %s: %s was not made here", p.Service, p.Dir)
	}
	if err := os.RemoveAll(p.Dir); err != nil {
		return fmt.Errorf("services: %s: %w", p.Service, err)
	}
	return nil
}

// born is when a process started, by /proc or ps; empty when it has ended.
func born(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		out, err := exec.Command("ps", "-o", "lstart=", "-p", fmt.Sprint(pid)).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	// The second field is the name in parentheses, and may hold anything; the start is field 22.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
