package simulation

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

var errStore = errors.New("simulation: the connection to the store broke")

// memberStore is one coordinator's way to the store that all share. The
// coordinator may die, and freeze, before and after each call has taken effect.
// Its clock differs from the others': times are turned into its own on the way.
type memberStore struct {
	store.Store
	p    *process
	w    *world
	skew time.Duration // how far its clock is ahead

	mu   sync.Mutex
	past store.Batch // some batch from before
}

// prompt are the calls during which the engine holds a mutex, which virtual time
// does not know of: they take no time, and fail in a frozen coordinator.
var prompt = map[string]bool{"join": true, "renew": true, "acquire": true, "transfer": true, "leases": true}

// pass is the process's, but for prompt calls.
func (s *memberStore) pass(op string) error {
	if !s.p.dead.Load() && prompt[op] && s.p.frozen() {
		return errStore
	}
	if prompt[op] && s.p.dead.Load() || !prompt[op] && s.p.pass() != nil {
		return store.ErrClosed
	}
	return nil
}

// through is a call's way to the store and back.
func (s *memberStore) through(ctx context.Context, op string, call func(context.Context) error) error {
	w, n := s.w, s.w.nth("store", s.p.id, op)
	at := func(p float64, what string) bool { return w.rough(p, what, s.p.id, op, n) }
	if err := s.pass(op); err != nil {
		return err
	}
	if !prompt[op] {
		s.wait(op, n)
	}
	switch {
	case at(crashRate(op), "crash before the store"):
		s.p.kill("before the store hears of its %s", op)
	case at(0.01, "store request lost"):
		w.fault("store request lost", s.p.id, "%s %d", op, n)
		return errStore
	}
	if err := s.pass(op); err != nil {
		return err
	}
	err := call(context.WithoutCancel(ctx))
	if at(crashRate(op), "crash after the store") {
		s.p.kill("after the store did its %s", op)
	}
	if perr := s.pass(op); perr != nil {
		return perr
	}
	if err == nil && at(0.01, "store reply lost") {
		w.fault("store reply lost", s.p.id, "%s %d took effect", op, n)
		return errStore
	}
	return err
}

// wait takes a call's time.
func (s *memberStore) wait(op string, n int) {
	w := s.w
	d := w.upTo(8*time.Millisecond, "store", s.p.id, op, n)
	if w.rough(0.005, "slow store", s.p.id, op, n) {
		d = w.upTo(slowest, "slow store for", s.p.id, op, n)
		w.fault("slow store", s.p.id, "%s takes %v", op, d.Round(time.Millisecond))
	}
	w.sleep(d)
}

// crashRate is how often a coordinator dies at a call: most of them are sweeps
// and renewals, at which there is little to lose.
func crashRate(op string) float64 {
	if op == "commit" {
		return 0.008
	}
	return 0.0004
}

// Commit implements store.Store.
func (s *memberStore) Commit(ctx context.Context, b store.Batch) error {
	b = s.outward(b)
	if late, found := s.late(b); found {
		_ = s.Store.Commit(context.WithoutCancel(ctx), late) // a packet that was long on its way: nobody hears the answer
	}
	return s.through(ctx, "commit", func(ctx context.Context) error {
		s.w.leases.Lock()
		defer s.w.leases.Unlock()
		err := s.Store.Commit(ctx, b)
		for _, wr := range b.Writes {
			s.w.say(s.p.id, "commits %s v%d %v: %s", wr.Record.GID, wr.Record.Version, txn.State(wr.Record.State), outcomeOf(err))
		}
		if err == nil {
			s.w.committed(s.p, b)
		}
		return err
	})
}

func outcomeOf(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// late is a batch from before that the store gets again.
func (s *memberStore) late(b store.Batch) (late store.Batch, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.w.nth("late", s.p.id)
	late, found = s.past, len(s.past.Writes) > 0 && s.w.rough(0.03, "batch repeated", s.p.id, n)
	if found {
		s.w.fault("batch repeated", s.p.id, "%s v%d", late.Writes[0].Record.GID, late.Writes[0].Record.Version)
	}
	if len(s.past.Writes) == 0 || s.w.pick(3, "remember", s.p.id, n) == 0 {
		s.past = b
	}
	return late, found
}

// outward turns the member's times into the store's.
func (s *memberStore) outward(b store.Batch) store.Batch {
	writes := make([]store.Write, len(b.Writes))
	for i, w := range b.Writes {
		w.Record = shift(w.Record, -s.skew)
		writes[i] = w
	}
	b.Writes = writes
	return b
}

func shift(r store.Record, d time.Duration) store.Record {
	for _, t := range []*time.Time{&r.CreatedAt, &r.UpdatedAt, &r.Deadline, &r.NextAt, &r.FinishedAt} {
		*t = move(*t, d)
	}
	return r
}

func move(t time.Time, d time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d)
}

// Load implements store.Store.
func (s *memberStore) Load(ctx context.Context, gid string) (r store.Record, err error) {
	err = s.through(ctx, "load", func(ctx context.Context) (err error) {
		r, err = s.Store.Load(ctx, gid)
		return err
	})
	return shift(r, s.skew), err
}

// Due implements store.Store.
func (s *memberStore) Due(ctx context.Context, q store.DueQuery) (all []store.Record, err error) {
	q.From, q.Until, q.AfterNext = move(q.From, -s.skew), move(q.Until, -s.skew), move(q.AfterNext, -s.skew)
	err = s.through(ctx, "due", func(ctx context.Context) (err error) {
		all, err = s.Store.Due(ctx, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i] = shift(all[i], s.skew)
	}
	return all, nil
}
