// Package process runs programs that are to be killed, stopped and started
// again, and ends them with the program that runs them.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"
)

const (
	grace    = 10 * time.Second       // from SIGTERM to SIGKILL, at the end
	respite  = 200 * time.Millisecond // before a start after one that failed
	lookTime = 10 * time.Millisecond
	maxFails = 300 // starts in a row that came to nothing
)

// Config is a program and how it is run.
type Config struct {
	Name string // for people; unique
	Path string
	Args []string
	Env  []string // beside our own
	Log  string   // a file; output is appended
	// Ready matches the line of output that says that the program works.
	Ready *regexp.Regexp
}

// Process is a program that is started again whenever it ends, as a supervisor
// would, unless it is held. Its methods may be called by many goroutines.
type Process struct {
	Config

	mu      sync.Mutex
	cmd     *exec.Cmd // of the process that runs now; nil: none
	life    int       // counts processes
	ready   bool      // this process said so
	asked   bool      // this process was told to end
	held    bool      // none is started
	stopped bool      // by SIGSTOP
	exits   []string  // of processes that worked, and ended unasked
	code    int       // exit code of the last process that was told to end
	peak    int64     // of all processes, in bytes
}

// New returns a process that Run will run.
func New(c Config) *Process { return &Process{Config: c} }

// Run keeps the program running until ctx ends; then it is ended by SIGTERM, or
// after a while by SIGKILL.
func (p *Process) Run(ctx context.Context) error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // nothing depends on it
	for fails := 0; ctx.Err() == nil; {
		if p.isHeld() {
			sleep(ctx, lookTime)
			continue
		}
		worked, err := p.once(ctx, log)
		if worked || ctx.Err() != nil {
			fails = 0
			continue
		}
		if fails++; fails == maxFails {
			return fmt.Errorf("process: %s cannot be started, see %s: %w", p.Name, p.Log, err)
		}
		sleep(ctx, respite) // its database may be away
	}
	return nil
}

// once is one life.
func (p *Process) once(ctx context.Context, log *os.File) (worked bool, err error) {
	cmd := exec.CommandContext(ctx, p.Path, p.Args...) //nolint:gosec // programs that were just built
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = grace
	cmd.Cancel = func() error { // a stopped process hears SIGTERM once it goes on
		_ = cmd.Process.Signal(syscall.SIGCONT) // its error is that of the next line
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	watch := &watcher{log: log, ready: p.Ready, found: p.isReady}
	cmd.Stdout, cmd.Stderr = watch, watch
	p.mu.Lock()
	p.ready, p.asked, p.stopped = false, false, false
	err = cmd.Start()
	if err == nil {
		p.cmd = cmd
		p.life++
	}
	p.mu.Unlock()
	if err != nil {
		return false, err
	}
	err = cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	worked = p.ready
	switch {
	case p.asked:
		p.code = cmd.ProcessState.ExitCode()
	case worked && ctx.Err() == nil:
		p.exits = append(p.exits, fmt.Sprintf("%s ended by itself: %v (see %s)", p.Name, cmd.ProcessState, p.Log))
	}
	p.ready, p.cmd, p.stopped = false, nil, false
	return worked || p.asked, err
}

// Kill is kill -9. It reports the pid, and false when there is no process now.
func (p *Process) Kill() (pid int, done bool) { return p.signal(syscall.SIGKILL) }

// Terminate is SIGTERM; see AwaitExit. It reports as Kill does.
func (p *Process) Terminate() (pid int, done bool) { return p.signal(syscall.SIGTERM) }

func (p *Process) signal(sig syscall.Signal) (pid int, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0, false
	}
	if p.cmd.Process.Signal(sig) != nil { // it has just ended by itself
		return 0, false
	}
	p.asked = true
	if p.peak = max(p.peak, peakRSS(p.cmd.Process.Pid)); p.stopped {
		_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be gone: that is what was asked
	}
	return p.cmd.Process.Pid, true
}

// Pause is SIGSTOP. It reports false when there is no process now.
func (p *Process) Pause() bool { return p.pause(syscall.SIGSTOP, true) }

// Resume is SIGCONT. It reports false when there is no process now.
func (p *Process) Resume() bool { return p.pause(syscall.SIGCONT, false) }

func (p *Process) pause(sig syscall.Signal, stop bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.Process.Signal(sig) != nil {
		return false
	}
	p.stopped = stop
	return true
}

// Hold keeps the next process from being started, until Release.
func (p *Process) Hold() { p.hold(true) }

// Release ends Hold.
func (p *Process) Release() { p.hold(false) }

func (p *Process) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
}

func (p *Process) isHeld() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

func (p *Process) isReady() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = true
}

// Up reports whether a process works and is not stopped, and which one: they
// are counted from 1.
func (p *Process) Up() (life int, up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life, p.cmd != nil && p.ready && !p.asked && !p.stopped
}

// AwaitReady returns when a process works that is none of the first `after`.
func (p *Process) AwaitReady(ctx context.Context, after int) error {
	for {
		if life, up := p.Up(); up && life > after {
			return nil
		}
		if !sleep(ctx, lookTime) {
			return errors.Join(fmt.Errorf("process: %s does not become ready, see %s", p.Name, p.Log), ctx.Err())
		}
	}
}

// AwaitExit returns the exit code of the process that was told to end.
func (p *Process) AwaitExit(ctx context.Context) (code int, err error) {
	for {
		p.mu.Lock()
		over, code := p.cmd == nil || !p.asked, p.code
		p.mu.Unlock()
		if over {
			return code, nil
		}
		if !sleep(ctx, lookTime) {
			return 0, errors.Join(fmt.Errorf("process: %s does not end, see %s", p.Name, p.Log), ctx.Err())
		}
	}
}

// Exits tells of processes that worked, and ended though nobody asked.
func (p *Process) Exits() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.exits...)
}

// PeakRSS is the most memory that any of the processes had when it was looked
// at, which is now, and before a signal; 0 where it is unknown.
func (p *Process) PeakRSS() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.peak = max(p.peak, peakRSS(p.cmd.Process.Pid))
	}
	return p.peak
}

// CPU is the processor time that the process has used that runs now; 0 where
// it is unknown.
func (p *Process) CPU() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return cpuTime(p.cmd.Process.Pid)
}

// ForgetPeak begins PeakRSS anew, for a process that is yet to come.
func (p *Process) ForgetPeak() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peak = 0
}

// sleep reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
