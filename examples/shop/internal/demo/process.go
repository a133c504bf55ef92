package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// process is a program that is started again whenever it ends, as a supervisor
// would. Its log is in a file.
type process struct {
	name  string
	path  string
	args  []string
	env   []string       // beside the demo's own
	log   string         // file
	ready *regexp.Regexp // of the line on standard error that says so; a group is its address

	mu     sync.Mutex
	cmd    *exec.Cmd
	addr   string
	up     chan struct{} // closed once the process that runs now is ready
	struck bool          // by kill
	deaths int           // while it was ready, that nobody here asked for
}

const (
	grace     = 8 * time.Second        // from SIGTERM to SIGKILL, at the end
	maxDeaths = 20                     // in a row, without getting ready
	respite   = 300 * time.Millisecond // before the next try after such a death
)

func newProcess(name, path, dir, ready string, args ...string) *process {
	return &process{
		name: name, path: path, args: args, log: filepath.Join(dir, name+".log"), ready: regexp.MustCompile(ready),
		up: make(chan struct{}),
	}
}

// run keeps the process running until ctx ends, and then ends it.
func (p *process) run(ctx context.Context) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // nothing depends on it
	for failed := 0; ; {
		wasReady, err := p.once(ctx, log)
		if ctx.Err() != nil {
			return nil
		}
		if wasReady {
			failed = 0
			continue
		}
		if failed++; failed == maxDeaths {
			return fmt.Errorf("%s cannot be started: %w", p.name, err)
		}
		sleep(ctx, respite) // its database may be away
	}
}

// once is one life of the process.
func (p *process) once(ctx context.Context, log io.Writer) (wasReady bool, err error) {
	cmd := exec.CommandContext(ctx, p.path, p.args...) //nolint:gosec // programs that were just built
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = dieWithParent()
	cmd.Stderr = &watcher{log: log, process: p}
	// The services end when this pipe closes: when we are gone, however that
	// came about.
	if _, err := cmd.StdinPipe(); err != nil {
		return false, err
	}
	p.mu.Lock()
	p.cmd = cmd
	err = cmd.Start()
	p.mu.Unlock()
	if err != nil {
		return false, err
	}
	err = cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.up:
		wasReady = true
		p.up = make(chan struct{})
	default:
	}
	if wasReady && !p.struck && ctx.Err() == nil {
		p.deaths++
	}
	p.struck = false
	return wasReady, err
}

// kill is kill -9. It reports false when the process died by itself just now.
func (p *process) kill() (pid int, done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		return 0, false, nil
	}
	p.struck = err == nil
	return p.cmd.Process.Pid, err == nil, err
}

// awaitReady returns when the process can be used.
func (p *process) awaitReady(ctx context.Context, patience time.Duration) error {
	p.mu.Lock()
	up := p.up
	p.mu.Unlock()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-up:
		return nil
	case <-late.C:
		return fmt.Errorf("%s is not ready after %s", p.name, patience)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isUp reports whether the process runs and said that it is ready.
func (p *process) isUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.up:
		return !p.struck
	default:
		return false
	}
}

// awaitRestart returns when the process that was killed is back.
func (p *process) awaitRestart(ctx context.Context) error {
	for !p.isUp() {
		if !sleep(ctx, lookEvery) {
			return ctx.Err()
		}
	}
	return nil
}

// address returns where the process said last that it listens.
func (p *process) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

func (p *process) died() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deaths
}

// watcher passes standard error to the log and looks for the line that says
// that the process is ready.
type watcher struct {
	log     io.Writer
	process *process
	line    []byte // the last one, as far as it was written
}

const maxReadyLine = 1024

// Write implements io.Writer.
func (w *watcher) Write(text []byte) (int, error) {
	w.line = append(w.line, text...)
	for {
		line, rest, found := bytes.Cut(w.line, []byte("\n"))
		if !found {
			break
		}
		if m := w.process.ready.FindSubmatch(line); m != nil {
			w.process.isReady(string(m[len(m)-1]))
		}
		w.line = rest
	}
	if len(w.line) > maxReadyLine {
		w.line = w.line[:0]
	}
	return w.log.Write(text)
}

func (p *process) isReady(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr = addr
	select {
	case <-p.up:
	default:
		close(p.up)
	}
}
