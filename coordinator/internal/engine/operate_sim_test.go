package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestOperatorSimulation has operators do whatever they can think of, legal or
// not, one by one and in bulk, to sagas, TCC transactions and two-phase messages whose participants
// answer, refuse, are slow, repeat themselves or say nothing, on two
// coordinators that crash and lose their leases, over a store that loses
// requests and replies. AMENDS_SIM_N says how many runs (200), AMENDS_SIM_SEED
// where to begin (alone: just that one).
func TestOperatorSimulation(t *testing.T) { simulate(t, 200, (*sim).run) }

func simulate(t *testing.T, n int, run func(*sim)) {
	seed := uint64(1)
	if v, err := strconv.ParseUint(os.Getenv("AMENDS_SIM_SEED"), 10, 64); err == nil {
		n, seed = 1, v
	}
	if v, err := strconv.Atoi(os.Getenv("AMENDS_SIM_N")); err == nil {
		n = v
	}
	for range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { run(newSim(t, seed)) }) })
		if t.Failed() {
			t.Fatalf("repeat: AMENDS_SIM_SEED=%d go test -run '%s$' ./coordinator/internal/engine", seed, t.Name())
		}
		seed++
	}
}

var simVerbs = []amendsv1.Verb{retry, abort, pauseIt, resume, skip, complete, fail, abandon}

func (s *sim) run() {
	defer s.end()
	s.launch(2)
	var all sync.WaitGroup
	for i := range 5 {
		ns := []string{"", "blue"}[i%2]
		gid := wire.Key(ns, fmt.Sprintf("g%d", i))
		s.gids = append(s.gids, gid)
		r := s.fork()
		all.Go(func() { s.application(r, gid, i%3 == 2) })
		o := s.fork()
		all.Go(func() { s.operator(o, gid) })
	}
	for i := range 2 {
		r := s.fork()
		all.Go(func() { s.bulkOperator(r, []string{"", "blue"}[i], fmt.Sprintf("b%d", i)) })
	}
	trouble := s.fork()
	all.Go(func() { s.trouble(trouble) })
	all.Wait()
	s.calm()
	s.finish()
	s.check()
}

// insist asks one coordinator after the other until one can be reached.
func (s *sim) insist(r *rand.Rand, ask func(ctx context.Context, n *simNode) error) error {
	for {
		n := s.any(r)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
		err := ask(ctx, n)
		cancel()
		if !passing(err) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		sleepUpTo(r, 2*time.Second)
	}
}

func sleepUpTo(r *rand.Rand, d time.Duration) { time.Sleep(time.Duration(r.Int64N(int64(d)))) }

// application starts a transaction; that of a TCC tries, then decides or forgets.
func (s *sim) application(r *rand.Rand, gid string, isTCC bool) {
	if !isTCC {
		d := simSaga(r)
		if err := s.insist(r, func(ctx context.Context, n *simNode) error {
			_, _, err := n.StartSaga(ctx, gid, d, nil)
			return err
		}); err != nil {
			s.t.Errorf("start %q: %v", gid, err)
		}
		return
	}
	if r.IntN(4) == 0 {
		s.messenger(r, gid)
		return
	}
	d := &tcc.Definition{Name: "tcc", Timeout: time.Duration(5+r.IntN(120)) * time.Second}
	if err := s.insist(r, func(ctx context.Context, n *simNode) error {
		_, _, err := n.BeginTCC(ctx, gid, d, nil)
		return err
	}); err != nil {
		s.t.Errorf("begin %q: %v", gid, err)
	}
	for i := range r.IntN(4) {
		b := tcc.Branch{Name: fmt.Sprintf("b%d", i), Action: "svc.b", Retry: simRetry(r)}
		n := s.any(r)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Duration(r.IntN(30))*time.Second)
		_, _ = n.Try(ctx, gid, b) // whatever comes of it
		cancel()
	}
	for range 3 {
		n := s.any(r)
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		if r.IntN(3) > 0 {
			_, _ = n.Commit(ctx, gid)
		} else {
			_, _ = n.Abort(ctx, gid, "app", "changed its mind")
		}
		cancel()
		sleepUpTo(r, 20*time.Second)
	}
}

// operator does this and that to one transaction.
func (s *sim) operator(r *rand.Rand, gid string) {
	for i := range 3 + r.IntN(8) {
		sleepUpTo(r, 15*time.Second)
		rec, err := s.st.Load(s.t.Context(), gid)
		if err != nil {
			continue
		}
		c := Command{GID: gid, Actor: "op", Reason: "because", RequestID: fmt.Sprintf("%q-%d", gid, i)}
		legal := s.choose(r, rec, &c)
		c.ValidateOnly = r.IntN(6) == 0
		if r.IntN(2) == 0 {
			c.ETag = etag(&rec)
		}
		s.carryOut(r, c, legal)
		if r.IntN(4) == 0 {
			s.carryOut(r, c, legal) // a repetition
		}
	}
}

// choose picks a verb and reports whether it is legal where rec stands.
func (s *sim) choose(r *rand.Rand, rec store.Record, c *Command) (legal bool) {
	m, _, err := decode(&rec)
	if err != nil {
		s.t.Fatal(err)
	}
	whole, branches, err := (&Engine{}).Legal(rec)
	if err != nil {
		s.t.Fatal(err)
	}
	c.Verb = simVerbs[r.IntN(len(simVerbs))]
	if c.Verb == abandon && r.IntN(3) > 0 {
		c.Verb = retry
	}
	ofBranch := slices.Contains([]amendsv1.Verb{skip, complete, fail}, c.Verb) || c.Verb == retry && r.IntN(2) == 0
	if c.Verb == complete && r.IntN(2) == 0 { // an answer to a check
		ofBranch = false
	}
	if ofBranch && m.branches() > 0 {
		i := r.IntN(m.branches())
		c.Branch = m.branch(i)
		return slices.Contains(branches[i], c.Verb)
	}
	return slices.Contains(whole, c.Verb)
}

// carryOut does a command, again and again while it cannot be known whether it
// was done.
func (s *sim) carryOut(r *rand.Rand, c Command, legal bool) {
	if c.Verb == resume && !c.ValidateOnly {
		s.released(c.GID)
	}
	var rec store.Record
	var at *simNode
	attempts := 0
	err := s.insist(r, func(ctx context.Context, n *simNode) (err error) {
		attempts++
		rec, err = n.Act(ctx, c)
		at = n
		return err
	})
	s.asked(c)
	switch {
	case err == nil:
		s.acknowledged(at, c, rec)
		if !legal && c.ETag != "" && attempts == 1 && !s.known(c) {
			s.t.Errorf("%q: %v of %q is not legal at etag %s and was done", c.GID, c.Verb, c.Branch, c.ETag)
		}
	case errors.Is(err, amendsv1.ErrIllegalVerb) && strings.Contains(err.Error(), "may have been called"):
		s.refused(c) // since another one was the owner, which the store does not show
	case errors.Is(err, amendsv1.ErrIllegalVerb) && legal && c.ETag != "":
		s.t.Errorf("%q: %v of %q is legal at etag %s and was refused: %v", c.GID, c.Verb, c.Branch, c.ETag, err)
	case errors.Is(err, amendsv1.ErrIllegalVerb), errors.Is(err, amendsv1.ErrETag),
		errors.Is(err, amendsv1.ErrInvalidArgument):
		s.refused(c)
	default:
		s.t.Errorf("%q: %v of %q: %v", c.GID, c.Verb, c.Branch, err)
	}
}

// bulkOperator starts a bulk, and may cancel it.
func (s *sim) bulkOperator(r *rand.Rand, ns, id string) {
	sleepUpTo(r, time.Minute)
	verb := []amendsv1.Verb{pauseIt, retry, abort}[r.IntN(3)]
	b := Bulk{ID: wire.BulkKey(ns, id), Verb: verb, Rate: 0.1 + r.Float64(), Filter: "x", Reason: "outage", Actor: "op",
		Query: store.Query{Unfinished: true, Namespace: &ns}}
	for range 2 {
		if err := s.insist(r, func(ctx context.Context, n *simNode) error {
			_, _, err := n.StartBulk(ctx, b)
			return err
		}); err != nil {
			s.t.Errorf("bulk %q: %v", b.ID, err)
		}
	}
	s.mu.Lock()
	s.bulks = append(s.bulks, b)
	s.mu.Unlock()
	if r.IntN(3) > 0 {
		return
	}
	sleepUpTo(r, 10*time.Second)
	if err := s.insist(r, func(ctx context.Context, n *simNode) error {
		_, err := n.CancelBulk(ctx, b.ID, "op", "enough")
		return err
	}); err != nil {
		s.t.Errorf("cancel %q: %v", b.ID, err)
	}
}

// finish lets every transaction come to its end: bulks have ended, then what is
// paused is resumed and what is parked is tried again.
func (s *sim) finish() {
	r := s.fork()
	for range 100 {
		time.Sleep(time.Minute)
		left := 0
		for _, b := range s.bulks {
			if rec, err := s.st.Load(s.t.Context(), b.ID); err != nil || rec.FinishedAt.IsZero() {
				left++
			}
		}
		if left > 0 {
			continue
		}
		for i, gid := range s.gids {
			rec, err := s.st.Load(s.t.Context(), gid)
			c := Command{GID: gid, RequestID: fmt.Sprintf("end-%d-%d", i, rec.Version), Verb: resume}
			switch {
			case err != nil || !rec.FinishedAt.IsZero():
				continue
			case rec.Paused:
				s.carryOut(r, c, true)
			case txn.State(rec.State) == txn.Parked:
				c.Verb = retry
				s.carryOut(r, c, true)
			}
			left++
		}
		if left == 0 {
			return
		}
	}
	keys := slices.Clone(s.gids)
	for _, b := range s.bulks {
		keys = append(keys, b.ID)
	}
	for _, key := range keys {
		rec, err := s.st.Load(s.t.Context(), key)
		s.t.Errorf("%q did not come to its end: %v paused %v due %v %s, %v, trail %s", key, txn.State(rec.State), rec.Paused,
			rec.NextAt, rec.Body, err, trailOf(s.t, s.st, key))
	}
}

func simRetry(r *rand.Rand) txn.Retry {
	retry := txn.Retry{Initial: time.Duration(1+r.IntN(5000)) * time.Millisecond, Cap: time.Minute}
	if r.IntN(3) == 0 {
		retry.Attempts = 1 + r.IntN(4)
	}
	return retry
}

// simSaga is a saga of a few steps, with or without a pivot.
func simSaga(r *rand.Rand) *saga.Definition {
	for {
		d := &saga.Definition{Name: "sim"}
		pivot := r.IntN(8)
		for i := range 1 + r.IntN(5) {
			s := saga.Step{Name: fmt.Sprintf("s%d", i), Action: "svc.do", Retry: simRetry(r)}
			switch {
			case i == pivot:
				s.Kind = saga.Pivot
			case i > pivot:
				s.Kind = saga.Retriable
			}
			for a := range i {
				if r.IntN(2) == 0 {
					s.After = append(s.After, a)
				}
			}
			d.Steps = append(d.Steps, s)
		}
		if r.IntN(3) == 0 {
			d.Timeout = time.Duration(1+r.IntN(90)) * time.Second
		}
		if d.Validate() == nil {
			return d
		}
	}
}
