package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/amends-dev/amends/deploy/services"
)

// upTime bounds up as a whole; the first one fetches packages and jars.
const upTime = 10 * time.Minute

// lock lets one command at a time change what runs; the answer unlocks.
func (t *tool) lock(ctx context.Context, name string) (func(), error) {
	folder := filepath.Join(t.root, services.Folder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	l := flock.New(filepath.Join(folder, name))
	if _, err := l.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return nil, fmt.Errorf("services: waiting for another command: %w", err)
	}
	return func() { l.Unlock() }, nil // the end of the process would do
}

// up starts every service that is not there, and writes down what became of
// each: one that cannot be started is no error, but a reason in the state.
func (t *tool) up(ctx context.Context, keep bool) error {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	unlock, err := t.lock(ctx, "services.lock")
	if err != nil {
		return err
	}
	defer unlock()
	st, err := services.Load(t.root)
	if err != nil {
		return err
	}
	if err := t.sweep(); err != nil {
		return err
	}
	st.Keep = st.Keep || keep
	todo, err := t.wanted(ctx, st)
	if err != nil {
		return err
	}
	if len(todo) > 0 {
		todo = t.upDocker(ctx, st, todo)
	}
	if len(todo) > 0 {
		t.upNative(ctx, st, todo)
	}
	return errors.Join(st.Save(t.root), context.Cause(ctx))
}

// wanted finds the services that nobody runs, and clears away what is left of
// those that ran.
func (t *tool) wanted(ctx context.Context, st *services.State) ([]services.Service, error) {
	var todo []services.Service
	for _, s := range t.which {
		if addr := t.getenv(s.Env()); addr != "" {
			if err := services.Ping(ctx, s, addr); err != nil {
				return nil, fmt.Errorf("%w: mend or unset %s", err, s.Env())
			}
			t.say("%s: the one that %s names", s.Title(), s.Env())
			continue
		}
		e := st.Services[s]
		if e != nil && e.Addr != "" && services.Ping(ctx, s, e.Addr) == nil {
			t.say("%s: runs already (%s)", s.Title(), e.Source)
			continue
		}
		if err := t.end(e); err != nil {
			return nil, err
		}
		delete(st.Services, s)
		todo = append(todo, s)
	}
	return todo, nil
}

// sweep ends what killed tests left behind.
func (t *tool) sweep() error {
	n, err := services.Sweep(t.root)
	if n > 0 {
		t.say("ended %d servers of tests that were killed", n)
	}
	return err
}

// end stops and removes a server that we started.
func (t *tool) end(e *services.Entry) error {
	if e == nil || e.Process == nil {
		return nil
	}
	if err := e.Process.Stop(); err != nil {
		return err
	}
	return e.Process.Remove()
}

// upNative starts processes on loopback, all at once.
func (t *tool) upNative(ctx context.Context, st *services.State, todo []services.Service) {
	t.install(ctx, todo)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards st
	for _, s := range todo {
		wg.Go(func() {
			begin := time.Now()
			p, err := t.start(ctx, s)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.say("%s: NOT THERE: %v", s.Title(), err)
				st.Services[s] = &services.Entry{Source: "native", Missing: err.Error()}
				return
			}
			t.say("%s: process %d, data in %s (%.1f s)", s.Title(), p.PID, p.Dir, time.Since(begin).Seconds())
			st.Services[s] = &services.Entry{Source: "native", Addr: p.Addr, Process: p}
			if err := st.Save(t.root); err != nil { // what dies from here on can still be ended
				t.say("%v", err)
			}
		})
	}
	wg.Wait()
}

func (t *tool) start(ctx context.Context, s services.Service) (*services.Process, error) {
	var err error
	switch s {
	case services.Kafka:
		err = services.InstallKafka(ctx, t.say)
	case services.RabbitMQ, services.NATS:
		if t.getenv(noInstall) != "no" {
			err = services.Install(ctx, s, t.say)
		}
	}
	if err != nil {
		return nil, err
	}
	p, err := services.New(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := p.Start(ctx); err != nil {
		return nil, errors.Join(err, p.Remove())
	}
	return p, nil
}

// down ends what was started here, and nothing else.
func (t *tool) down(ctx context.Context) error {
	unlock, err := t.lock(ctx, "services.lock")
	if err != nil {
		return err
	}
	defer unlock()
	st, err := services.Load(t.root)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range t.which {
		e := st.Services[s]
		if err := t.end(e); err != nil {
			errs = append(errs, err)
			continue
		}
		if e != nil && e.Process != nil {
			t.say("%s: ended, and its data removed", s.Title())
		}
		if e != nil && e.Source != sourceDocker {
			delete(st.Services, s)
		}
	}
	errs = append(errs, t.sweep(), t.downDocker(ctx, st), st.Save(t.root))
	return errors.Join(errs...)
}

// restart ends a server that we started and runs it again, same address, same data.
func (t *tool) restart(ctx context.Context, s services.Service, kill bool) error {
	unlock, err := t.lock(ctx, "services.lock")
	if err != nil {
		return err
	}
	defer unlock()
	st, err := services.Load(t.root)
	if err != nil {
		return err
	}
	e := st.Services[s]
	switch {
	case e != nil && e.Process != nil:
		end := e.Process.Stop
		if kill {
			end = e.Process.Kill
		}
		if err := end(); err != nil {
			return err
		}
		// Saved in any case: it has another PID now.
		return errors.Join(e.Process.Start(ctx), st.Save(t.root))
	case e != nil && e.Source == sourceDocker:
		return t.restartDocker(ctx, st, s, kill)
	}
	return fmt.Errorf("services: restart: no %q was started here: run `make services`, without %s", s, s.Env())
}
