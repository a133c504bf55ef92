package sdk

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// attendances returns what attends to the coordinators behind each connection
// until its context ends.
func (p *Participant) attendances(handling context.Context, conns []grpc.ClientConnInterface) []func(context.Context) error {
	all := &verdicts{of: map[any]error{}}
	var runs []func(context.Context) error
	for _, conn := range conns {
		if c, ok := conn.(*Cluster); ok {
			f := &following{p: p, handling: handling, cluster: c, verdicts: all, streams: map[*link]*attendance{}}
			all.join(f)
			runs = append(runs, f.run)
			continue
		}
		a := &attendance{p: p, conn: inNamespace(conn, p.cfg.Namespace), handling: handling, verdicts: all}
		all.join(a)
		runs = append(runs, a.keep)
	}
	return runs
}

// following is what a participant does with a cluster: an attendance a member.
type following struct {
	p        *Participant
	handling context.Context // of handlers
	cluster  *Cluster
	verdicts *verdicts
	streams  map[*link]*attendance
}

// run attends to each member until ctx ends, and to one that leaves until it has.
func (f *following) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			v := f.cluster.now.Load()
			if v.closed && ctx.Err() == nil {
				return errors.New("the cluster was closed under it")
			}
			for _, l := range v.attend {
				if f.streams[l] == nil {
					a := f.begin(gctx, l)
					g.Go(func() error { return a.keep(a.life) })
				}
			}
			if err := f.leave(v); err != nil {
				return err
			}
			select {
			case <-v.replaced:
			case <-gctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

func (f *following) begin(ctx context.Context, l *link) *attendance {
	a := &attendance{
		p: f.p, conn: inNamespace(l.conn, f.p.cfg.Namespace), handling: f.handling, verdicts: f.verdicts,
		cluster: f.cluster, link: l,
	}
	a.life, a.end = context.WithCancel(ctx)
	f.streams[l] = a
	f.verdicts.join(a)
	return a
}

// leave drains the streams to whoever is no member any more. Until one of the
// others is known, f itself is who may still say something else.
func (f *following) leave(v *view) error {
	if len(v.attend) == 0 {
		f.verdicts.join(f)
	}
	var errs []error
	for l, a := range f.streams {
		if !slices.Contains(v.attend, l) {
			a.end()
			delete(f.streams, l)
			errs = append(errs, f.verdicts.leave(a))
		}
	}
	if len(v.attend) > 0 {
		errs = append(errs, f.verdicts.leave(f))
	}
	return errors.Join(errs...)
}

// verdicts is what the coordinators of one Run say: nil, or something hopeless.
// When none is left that might let us in, there is no use in trying.
type verdicts struct {
	mu sync.Mutex
	of map[any]error // by attendance or following
}

// join adds a coordinator that has not said anything yet.
func (v *verdicts) join(key any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.of[key] = nil
}

// say notes what a coordinator says, and returns an error when all are hopeless.
func (v *verdicts) say(key any, err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.of[key]; ok { // else it left in the meantime
		v.of[key] = err
	}
	return v.all()
}

// leave is say of a coordinator that is none any more.
func (v *verdicts) leave(key any) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.of[key]; !ok {
		return nil
	}
	delete(v.of, key)
	return v.all()
}

func (v *verdicts) all() error {
	var errs []error
	for _, err := range v.of {
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
