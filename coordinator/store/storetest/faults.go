package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// ErrFault is the error of an injected fault. Like that of a cut connection it
// does not say whether the call took effect.
var ErrFault = errors.New("storetest: injected fault")

// FaultConfig says how often what goes wrong; each is a probability, 0 to 1.
type FaultConfig struct {
	Seed         uint64
	LoseRequests float64 // a write fails and was not executed
	LoseReplies  float64 // a write is executed and fails all the same
	Repeat       float64 // an earlier batch is executed again just before a commit
}

// Faults is a store between a coordinator and its real store that loses
// requests and replies of Commit, Acquire, Renew, Release, Transfer, Join and
// Leave, and delivers batches again, late. Reads and Purge pass; no batch is late enough to arrive
// after a Purge, which would bring its transactions back.
type Faults struct {
	store.Store
	cfg FaultConfig

	mu   sync.Mutex
	r    *rand.Rand
	past []store.Batch // the last few
	next []fault       // scripted, before chance
}

type fault uint8

const (
	noFault fault = iota
	requestLost
	replyLost
)

// NewFaults wraps st. nil means no faults but those of LoseNextReply and
// LoseNextRequest.
func NewFaults(st store.Store, cfg *FaultConfig) *Faults {
	f := &Faults{Store: st}
	if cfg != nil {
		f.cfg = *cfg
	}
	f.r = rand.New(rand.NewPCG(f.cfg.Seed, 2))
	return f
}

// LoseNextReply lets the next write take effect and fail.
func (f *Faults) LoseNextReply() { f.script(replyLost) }

// LoseNextRequest lets the next write fail without effect.
func (f *Faults) LoseNextRequest() { f.script(requestLost) }

func (f *Faults) script(what fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = append(f.next, what)
}

func (f *Faults) draw() fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.next) > 0 {
		what := f.next[0]
		f.next = f.next[1:]
		return what
	}
	switch p := f.r.Float64(); {
	case p < f.cfg.LoseRequests:
		return requestLost
	case p < f.cfg.LoseRequests+f.cfg.LoseReplies:
		return replyLost
	}
	return noFault
}

func (f *Faults) through(op string, call func() error) error {
	what := f.draw()
	if what == requestLost {
		return fmt.Errorf("%s: request lost: %w", op, ErrFault)
	}
	if err := call(); err != nil || what == noFault {
		return err
	}
	return fmt.Errorf("%s: executed, reply lost: %w", op, ErrFault)
}

// Commit implements store.Store.
func (f *Faults) Commit(ctx context.Context, b store.Batch) error {
	if late, found := f.late(b); found {
		// As from a packet that was long on its way: nobody sees the answer.
		_ = f.Store.Commit(ctx, late)
	}
	return f.through("commit", func() error { return f.Store.Commit(ctx, b) })
}

// Purge implements store.Store.
func (f *Faults) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	f.mu.Lock()
	f.past = nil
	f.mu.Unlock()
	return f.Store.Purge(ctx, before, limit)
}

// late remembers b and says whether an earlier batch is to be repeated first.
func (f *Faults) late(b store.Batch) (store.Batch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var late store.Batch
	found := len(f.past) > 0 && f.r.Float64() < f.cfg.Repeat
	if found {
		late = f.past[f.r.IntN(len(f.past))]
	}
	f.past = append(f.past, b)
	if len(f.past) > 8 {
		f.past = f.past[1:]
	}
	return late, found
}

// Acquire implements store.Store.
func (f *Faults) Acquire(ctx context.Context, owner string, ttl time.Duration, limit int) (l []store.Lease, err error) {
	err = f.through("acquire", func() (err error) {
		l, err = f.Store.Acquire(ctx, owner, ttl, limit)
		return err
	})
	return orNone(l, err), err
}

// Renew implements store.Store.
func (f *Faults) Renew(ctx context.Context, owner string, ttl time.Duration) (l []store.Lease, err error) {
	err = f.through("renew", func() (err error) {
		l, err = f.Store.Renew(ctx, owner, ttl)
		return err
	})
	return orNone(l, err), err
}

// Release implements store.Store.
func (f *Faults) Release(ctx context.Context, owner string) error {
	return f.through("release", func() error { return f.Store.Release(ctx, owner) })
}

// Transfer implements store.Store.
func (f *Faults) Transfer(ctx context.Context, leases []store.Lease, to string, ttl time.Duration) (l []store.Lease, err error) {
	err = f.through("transfer", func() (err error) {
		l, err = f.Store.Transfer(ctx, leases, to, ttl)
		return err
	})
	return orNone(l, err), err
}

// Join implements store.Store.
func (f *Faults) Join(ctx context.Context, m store.Member, ttl time.Duration) (all []store.Member, err error) {
	err = f.through("join", func() (err error) {
		all, err = f.Store.Join(ctx, m, ttl)
		return err
	})
	return orNone(all, err), err
}

// Leave implements store.Store.
func (f *Faults) Leave(ctx context.Context, name string) error {
	return f.through("leave", func() error { return f.Store.Leave(ctx, name) })
}

func orNone[T any](l []T, err error) []T {
	if err != nil {
		return nil
	}
	return l
}

// faultless returns the store behind the faults, if there are any.
func faultless(st store.Store) store.Store {
	if f, ok := st.(*Faults); ok {
		return f.Store
	}
	return st
}
