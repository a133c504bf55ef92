package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestMessageSimulation is TestOperatorSimulation with two-phase messages alone:
// whoever dies, whatever is lost or late, a message whose work committed is
// committed, and one whose work did not is rolled back. AMENDS_SIM_N says how
// many runs (500).
func TestMessageSimulation(t *testing.T) { simulate(t, 500, (*sim).messages) }

func (s *sim) messages() {
	defer s.end()
	s.launch(2)
	var all sync.WaitGroup
	for i := range 3 {
		gid := fmt.Sprintf("m%d", i)
		s.gids = append(s.gids, gid)
		r := s.fork()
		all.Go(func() { s.messenger(r, gid) })
	}
	o := s.fork()
	all.Go(func() { s.operator(o, s.gids[0]) })
	trouble := s.fork()
	all.Go(func() { s.trouble(trouble) })
	all.Wait()
	s.calm()
	s.finish()
	s.check()
}

// simWork is what the sender of a two-phase message does by itself.
type simWork struct {
	mu        sync.Mutex
	committed bool
	barred    bool // its check said that it never will
}

// commit does the work, unless it is barred.
func (w *simWork) commit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.committed = !w.barred
}

// result is the check's answer: what it does not find, it bars.
func (w *simWork) result() txn.Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.committed {
		return txn.OK
	}
	w.barred = true
	return txn.Refused
}

func (s *sim) work(gid string) *simWork {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.works[gid] == nil {
		s.works[gid] = &simWork{}
	}
	return s.works[gid]
}

// messenger sends a two-phase message: it tries, works, says so, and may die
// before each of these.
func (s *sim) messenger(r *rand.Rand, gid string) {
	w := s.work(gid)
	d := &tcc.Definition{Name: "message", Timeout: time.Duration(5+r.IntN(60)) * time.Second,
		Check: tcc.CheckBack{Action: "app.check", Retry: simRetry(r)}}
	if err := s.insist(r, func(ctx context.Context, n *simNode) error {
		_, _, err := n.BeginTCC(ctx, gid, d, nil)
		return err
	}); err != nil {
		s.t.Errorf("begin %q: %v", gid, err)
	}
	for i := range r.IntN(3) {
		n := s.any(r)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
		_, err := n.Try(ctx, gid, tcc.Branch{Name: fmt.Sprintf("b%d", i), Action: "svc.b", Retry: simRetry(r)})
		cancel()
		if err != nil {
			return // it does not work, and says nothing
		}
	}
	sleepUpTo(r, time.Duration(1+r.IntN(60))*time.Second)
	works := r.IntN(4) > 0
	if works {
		w.commit()
	}
	if r.IntN(2) == 0 {
		return // dead
	}
	sleepUpTo(r, time.Duration(1+r.IntN(60))*time.Second)
	var told error
	err := s.insist(r, func(ctx context.Context, n *simNode) (err error) {
		if w.result() == txn.OK {
			_, err = n.Commit(ctx, gid)
		} else {
			_, err = n.Abort(ctx, gid, "app", "its work failed")
		}
		told = err
		return err
	})
	if err != nil && !errors.Is(err, amendsv1.ErrDecided) && !errors.Is(err, amendsv1.ErrDeadlinePassed) &&
		!errors.Is(err, amendsv1.ErrRefused) {
		s.t.Errorf("decide %q: %v", gid, told)
	}
}

// answerCheck answers in time, late, more than once, not at all, or that it
// cannot tell; but never what is not so.
func (s *sim) answerCheck(r *rand.Rand, c dispatch.Call, say func(txn.Outcome)) {
	w := s.work(c.GID)
	if s.well.Load() {
		say(w.result())
		return
	}
	sleepUpTo(r, 3*time.Second)
	switch k := r.IntN(20); {
	case k < 3:
		say(w.result())
	case k < 5:
		say(w.result())
		sleepUpTo(r, 10*time.Second)
		say(w.result())
	case k < 14:
		say(txn.Unknown)
	default:
		result := w.result()
		time.Sleep(10 * time.Second)
		say(txn.Unknown)
		sleepUpTo(r, time.Minute)
		say(result)
	}
}

// checkWork holds what was decided against what became of the work, unless an
// operator decided it.
func (s *sim) checkWork(gid string) {
	w := s.works[gid]
	if w == nil {
		return
	}
	rec, err := s.st.Load(s.t.Context(), gid)
	if err != nil {
		s.t.Fatal(err)
	}
	evs, err := s.st.Events(s.t.Context(), gid, 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, ev := range evs {
		var d detail
		if err := json.Unmarshal(ev.Data, &d); err != nil {
			s.t.Fatal(err)
		}
		if d.Request != "" && d.Branch == "" && slices.Contains([]string{"abort", "abandon", "complete"}, ev.Type) {
			return
		}
	}
	if state := txn.State(rec.State); state != txn.Committed && w.committed || state != txn.RolledBack && !w.committed {
		s.t.Errorf("%q is %v, but its sender's work: committed %v; trail %s", gid, state, w.committed,
			trailOf(s.t, s.st, gid))
	}
}
