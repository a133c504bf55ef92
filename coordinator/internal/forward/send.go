package forward

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// send has another member answer. A member that is not reached, or whose shard
// moves away meanwhile, is an ErrNotOwner.
func (f *Forwarder) send(ctx context.Context, r *request, owner store.Member) (any, error) {
	conn, err := f.conns.to(owner.Address)
	if err != nil {
		return nil, err
	}
	if waitOf(r.msg) > 0 { // what waits here is ended by the engine
		var free func()
		ctx, free = f.untilEnd(ctx)
		defer free()
	}
	out, err := f.cfg.Vouch(f.outgoing(ctx), owner.Name, r.method, r.msg)
	if err != nil {
		return nil, err
	}
	out, land := f.fly(out, r.to, owner)
	defer land()
	f.sent.Add(1)
	resp := r.answer()
	err = conn.Invoke(out, r.method, r.msg, resp)
	switch {
	case err == nil:
		return resp, nil
	case waitOf(r.msg) > 0 && errors.Is(context.Cause(ctx), errEnding):
		return nil, errEnding
	}
	return nil, f.failure(ctx, out, r.to, owner, err)
}

// failure is what became of a request to another member. What that member itself
// says goes on unchanged, details and all.
func (f *Forwarder) failure(ctx, out context.Context, to target, owner store.Member, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if errors.Is(context.Cause(out), errMoved) {
		return amendsv1.ErrNotOwner.With("the transaction's shard has left coordinator %s; try again", owner.Name)
	}
	if len(status.Convert(err).Details()) > 0 {
		if errors.Is(amendsv1.FromError(err), amendsv1.ErrUnauthenticated) { // the caller is known here
			f.cfg.Logger.WarnContext(ctx, "amends: another coordinator does not believe this one", "member", owner.Name, "err", err)
			return amendsv1.ErrUnavailable.With("coordinator %s does not believe this one, %s: %s", owner.Name, f.cfg.Self, status.Convert(err).Message())
		}
		return restore(err)
	}
	if status.Code(err) == codes.Canceled { // not by the caller: the connection was closed here
		return amendsv1.ErrNotOwner.With("the connection to coordinator %s was closed; try again", owner.Name)
	}
	if errors.Is(amendsv1.FromError(err), amendsv1.ErrUnavailable) {
		f.conns.complain(owner, err)
		if to.member != "" {
			return amendsv1.ErrNotOwner.With("coordinator %s is not reached at %s; try again", owner.Name, owner.Address)
		}
		return amendsv1.ErrNotOwner.With("coordinator %s, which owns the transaction's shard, is not reached at %s; try again", owner.Name, owner.Address)
	}
	return err
}

// restore makes an ErrNotOwner known as one, and leaves the rest as it is.
func restore(err error) error {
	if known := amendsv1.FromError(err); errors.Is(known, amendsv1.ErrNotOwner) {
		return known
	}
	return err
}

// patience is how long one request has waited for an owner.
type patience struct {
	f     *Forwarder
	since time.Time // when it was first in vain
	tries int
}

// wait looks who owns what, and waits a little longer each time. It returns the
// error to answer with when the time is up.
func (p *patience) wait(ctx context.Context, cause error) error {
	if p.f.ending.Err() != nil {
		return errEnding
	}
	if p.tries++; p.tries == 1 {
		p.since = time.Now()
	}
	held := p.f.held.Add(1)
	defer p.f.held.Add(-1)
	if held > maxHeld || time.Since(p.since) > p.f.cfg.Patience {
		p.f.failed.Add(1)
		return cause
	}
	p.f.repeated.Add(1)
	p.f.refresh(ctx)
	step := lastStep
	if p.tries < 6 {
		step = firstStep << p.tries
	}
	timer := time.NewTimer(jitter(step))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.f.ending.Done():
		return errEnding
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// refresh looks who owns what. A store that does not answer is no reason to give
// up yet, and no reason to wait for it.
func (f *Forwarder) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	_ = f.cluster.Refresh(ctx) // it is asked for again
}

// jitter is between a half and the whole of d, so that those who wait for one
// member do not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
