package simulation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

var errDead = errors.New("simulation: the process is dead")

// process is one life of a program. Whatever leaves or reaches it goes through
// pass, so that from the moment of its death on nothing does.
type process struct {
	w    *world
	name string // of the program: "m0"
	id   string // of this life: "m0.2"
	ctx  context.Context
	end  context.CancelFunc
	dead atomic.Bool

	mu   sync.Mutex
	thaw chan struct{} // closed when it goes on; nil: it runs
}

func (w *world) newProcess(name string) *process {
	p := &process{w: w, name: name, id: fmt.Sprintf("%s.%d", name, w.nth("life", name))}
	p.ctx, p.end = context.WithCancel(context.Background())
	w.mu.Lock()
	w.processes[name] = p
	w.mu.Unlock()
	return p
}

// kill ends the process as kill -9 does: what it still does reaches nobody.
func (p *process) kill(why string, args ...any) {
	if p.dead.Swap(true) {
		return
	}
	p.w.fault("crash", p.id, why, args...)
	p.end()
	p.wake()
}

// freeze stops the process for a while, as SIGSTOP does.
func (p *process) freeze(d time.Duration) {
	p.mu.Lock()
	frozen := p.thaw != nil
	if !frozen {
		p.thaw = make(chan struct{})
	}
	p.mu.Unlock()
	if frozen || p.dead.Load() {
		return
	}
	p.w.fault("freeze", p.id, "for %v", d.Round(time.Millisecond))
	p.w.running.Go(func() {
		p.w.sleep(d)
		p.wake()
		p.w.say(p.id, "goes on")
	})
}

func (p *process) frozen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.thaw != nil
}

func (p *process) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.thaw != nil {
		close(p.thaw)
		p.thaw = nil
	}
}

// pass waits until the process runs, and fails when it is dead. The end of ctx
// is no way out of a frozen process.
func (p *process) pass() error {
	for {
		p.mu.Lock()
		thaw := p.thaw
		p.mu.Unlock()
		switch {
		case p.dead.Load():
			return errDead
		case thaw == nil:
			return nil
		}
		<-thaw
	}
}

// keep lives one life of a program after the other, until the simulation ends.
func (w *world) keep(name string, live func(p *process)) {
	w.running.Go(func() {
		for w.ctx.Err() == nil {
			p := w.newProcess(name)
			stop := context.AfterFunc(w.ctx, p.end)
			w.say(p.id, "begins")
			live(p)
			stop()
			p.dead.Store(true)
			p.end()
			p.wake()
			if w.ctx.Err() == nil {
				w.sleep(w.between(100*time.Millisecond, 8*time.Second, "down", p.id))
			}
		}
	})
}

// sleep waits for d, or until the simulation ends.
func (w *world) sleep(d time.Duration) {
	_ = sleep(w.ctx, d) // it is over, then
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
