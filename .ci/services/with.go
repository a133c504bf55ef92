package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gofrs/flock"

	"github.com/amends-dev/amends/deploy/services"
)

// with runs a command among the services, and afterwards takes down those that
// no `make services` asked to keep, whatever became of the command. Several may
// run in one work tree: the last one takes them down.
func (t *tool) with(args []string) (err error) {
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(sigs)

	release, err := t.use()
	if err != nil {
		return err
	}
	defer func() {
		if e := release(); e != nil {
			err = errors.Join(err, e)
		}
	}()

	place, err := newScratch(context.Background(), t.getenv)
	if err != nil {
		return err
	}
	defer func() {
		if e := place.remove(); e != nil {
			err = errors.Join(err, e)
		}
	}()

	if err := place.during(func() error { return t.upUnless(sigs) }); err != nil {
		return err
	}
	if t.getenv(services.RequireEnv) == "1" {
		if err := t.missing(); err != nil {
			return fmt.Errorf("%w\n%s=1: that is a failure", err, services.RequireEnv)
		}
	}
	return t.command(args, place.env, sigs)
}

// upUnless is up, until a signal comes.
func (t *tool) upUnless(sigs <-chan os.Signal) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() {
		t.installBrowser(ctx)
		done <- t.up(ctx, false)
	}()
	select {
	case err := <-done:
		cancel(nil)
		return err
	case sig := <-sigs:
		cancel(fmt.Errorf("services: %v", sig))
		return <-done
	}
}

// command runs args in a process group of their own and passes signals on to
// it, the third one as SIGKILL. Its environment is ours with extra.
func (t *tool) command(args, extra []string, sigs <-chan os.Signal) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), extra...)
	for _, s := range t.which {
		if addr, _ := services.Find(s, t.root, t.getenv); addr != "" {
			cmd.Env = append(cmd.Env, s.Env()+"="+addr)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for n := 1; ; n++ {
		select {
		case err := <-done:
			return err
		case got := <-sigs:
			sig := got.(syscall.Signal) //nolint:forcetypeassert // what os/signal delivers on Unix
			if n >= 3 {
				sig = syscall.SIGKILL
			}
			t.say("%v: ending the command", got)
			syscall.Kill(-cmd.Process.Pid, sig) // it fails when the group has just ended
		}
	}
}

// use counts this command among those that need the services. The answer ends
// that, and takes the services down when nobody needs them any more.
func (t *tool) use() (release func() error, err error) {
	folder := filepath.Join(t.root, services.Folder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	l := flock.New(filepath.Join(folder, "services.use"))
	if err := l.RLock(); err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	return func() error {
		if err := l.Unlock(); err != nil {
			return fmt.Errorf("services: %w", err)
		}
		last, err := l.TryLock()
		if err != nil || !last {
			return err
		}
		defer l.Unlock()
		st, err := services.Load(t.root)
		if err != nil {
			return err
		}
		if st.Keep {
			return t.sweep()
		}
		return t.down(context.Background())
	}, nil
}

// env prints what a shell needs.
func (t *tool) env(w io.Writer) error {
	for _, s := range t.which {
		if addr, _ := services.Find(s, t.root, t.getenv); addr != "" {
			fmt.Fprintf(w, "export %s='%s'\n", s.Env(), strings.ReplaceAll(addr, "'", `'\''`))
		}
	}
	return t.missing()
}
