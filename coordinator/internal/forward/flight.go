package forward

import (
	"context"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// flight is a request that is under way at another member.
type flight struct {
	to     target
	owner  string
	cancel context.CancelCauseFunc
}

// fly returns the context of a request to another member, which ends when its
// target is not that member's any more: one that hangs, or was cut off, would
// never answer.
func (f *Forwarder) fly(ctx context.Context, to target, owner store.Member) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	fl := &flight{to: to, owner: owner.Name, cancel: cancel}
	f.mu.Lock()
	f.flights[fl] = struct{}{}
	f.mu.Unlock()
	return ctx, func() {
		f.mu.Lock()
		delete(f.flights, fl)
		f.mu.Unlock()
		cancel(nil)
	}
}

// look calls back what is under way to where it does not belong any more.
func (f *Forwarder) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for fl := range f.flights {
		if owner, here := fl.to.owner(f); here || owner.Name != "" && owner.Name != fl.owner {
			fl.cancel(errMoved)
		}
	}
}

// Run watches over requests that are under way at other members until ctx ends.
// Then it does as End, and closes the connections to them.
func (f *Forwarder) Run(ctx context.Context) error {
	defer f.conns.close()
	defer f.end()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.look()
			f.conns.forget(f.cluster.Members())
		}
	}
}

// onEnd calls fn once End is called, and returns what forgets fn.
func (f *Forwarder) onEnd(fn func()) (forget func() bool) { return context.AfterFunc(f.ending, fn) }
