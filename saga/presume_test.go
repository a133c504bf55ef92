package saga_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

func inLine(kinds ...saga.Kind) *saga.Definition {
	d := &saga.Definition{Name: "line"}
	for i, k := range kinds {
		s := saga.Step{Name: string(rune('a' + i)), Action: "svc.act", Kind: k, Retry: saga.Retry{Attempts: 1}}
		if i > 0 {
			s.After = []int{i - 1}
		}
		d.Steps = append(d.Steps, s)
	}
	return d
}

// phasesOf are the phases of a state's steps, and which are presumed.
func phasesOf(s saga.State) string {
	var all []string
	for _, st := range s.Steps {
		p := st.Phase.String()
		if st.Presumed {
			p += "?"
		}
		all = append(all, p)
	}
	return strings.Join(all, " ")
}

// TestPresume: steps b and c of four may have been called, as far as whoever
// loads the saga knows.
func TestPresume(t *testing.T) {
	replied := func(branch, attempt int, o txn.Outcome) txn.Event {
		return txn.Replied{Branch: branch, Op: txn.Do, Attempt: attempt, Outcome: o, Message: "no"}
	}
	four := inLine(0, 0, 0, 0)
	free := inLine(saga.Retriable, 0, 0, 0)
	for _, c := range []struct {
		name  string
		d     *saga.Definition
		ev    txn.Event
		want  string
		state txn.State
		err   error
	}{
		{name: "done", d: four, ev: replied(0, 1, txn.OK), want: "DONE DOING PENDING? PENDING", state: txn.Running},
		{name: "abort", d: four, ev: txn.Abort{}, want: "DONE DONE UNDOING PENDING", state: txn.RollingBack},
		{name: "exhausted", d: four, ev: replied(0, 1, txn.Unknown), want: "DONE DONE UNDOING PENDING", state: txn.RollingBack},
		{name: "an operator's refusal", d: four, ev: txn.Fail{Branch: 0}, want: "DONE DONE UNDOING PENDING", state: txn.RollingBack},
		{name: "a refusal", d: four, ev: replied(0, 1, txn.Refused), want: "DONE DONE UNDOING PENDING", state: txn.RollingBack},
		{name: "a refusal of what has no undo", d: free, ev: replied(0, 1, txn.Refused),
			want: "REFUSED DONE UNDOING PENDING", state: txn.RollingBack},
		{name: "skip of what may have been called", d: four, ev: txn.Skip{Branch: 1}, err: txn.ErrIllegal},
		{name: "skip of what was not", d: four, ev: txn.Skip{Branch: 3},
			want: "DOING PENDING? PENDING? SKIPPED", state: txn.Running},
		{name: "skip", d: four, ev: txn.Skip{Branch: 0}, want: "SKIPPED DOING PENDING? PENDING", state: txn.Running},
		{name: "complete", d: four, ev: txn.Complete{Branch: 0}, err: txn.ErrIllegal},
		{name: "abandon", d: four, ev: txn.Abandon{}, want: "DOING PENDING? PENDING? PENDING", state: txn.Abandoned},
	} {
		s, err := saga.New(c.d).Presume(c.d, []int{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		next, err := s.Advance(c.d, c.ev)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
			continue
		}
		if err != nil {
			continue
		}
		if got := phasesOf(next); got != c.want || next.Phase != c.state {
			t.Errorf("%s: %s, %s; want %s, %s", c.name, got, next.Phase, c.want, c.state)
		}
		if err := next.Check(c.d); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, steps := range [][]int{{2}, {4}, {-1}} {
		if _, err := saga.New(four).Presume(four, steps); !errors.Is(err, saga.ErrInvariant) {
			t.Errorf("%d presumed: %v, want ErrInvariant", steps, err)
		}
	}
}

// TestPresumedAreUndone: whatever happens to a saga of which steps are presumed,
// its state breaks no rule, and each of those is called or undone.
func TestPresumedAreUndone(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		d := randomDefinition(rnd)
		s, owed := saga.New(d), map[int]bool{}
		for n := 0; !s.Phase.Finished() && n < 200; n++ {
			if s.Phase == txn.Running && rnd.IntN(3) == 0 {
				steps := mayPresume(rnd, d, s)
				var err error
				if s, err = s.Presume(d, steps); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				for _, i := range s.Presumed() {
					owed[i] = true
				}
			}
			ev := anyEvent(rnd, d, s)
			next, err := s.Advance(d, ev)
			if err != nil && !errors.Is(err, txn.ErrIllegal) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if s = next; s.Check(d) != nil {
				t.Fatalf("seed %d: after %+v: %v", seed, ev, s.Check(d))
			}
		}
		for i := range owed {
			if s.Steps[i].Attempt == 0 {
				t.Fatalf("seed %d: step %d was presumed to be called, and is %s in the end", seed, i, phasesOf(s))
			}
		}
	}
}

// mayPresume returns some steps that may have been called ahead of s.
func mayPresume(rnd *rand.Rand, d *saga.Definition, s saga.State) (steps []int) {
	called := make([]bool, len(d.Steps))
	for i, st := range s.Steps {
		called[i] = st.Attempt > 0 || st.Phase == saga.Skipped
		if called[i] || d.Steps[i].Kind != saga.Compensatable || rnd.IntN(4) == 0 {
			continue
		}
		called[i] = !slices.ContainsFunc(d.Steps[i].After, func(a int) bool { return !called[a] })
		if called[i] {
			steps = append(steps, i)
		}
	}
	return steps
}

// anyEvent answers a call, or is of a person.
func anyEvent(rnd *rand.Rand, d *saga.Definition, s saga.State) txn.Event {
	calls := s.Outstanding(d)
	i := rnd.IntN(len(d.Steps))
	switch rnd.IntN(20) {
	case 0:
		return txn.Abort{}
	case 1:
		return txn.Skip{Branch: i}
	case 2:
		return txn.Complete{Branch: i}
	case 3:
		return txn.Fail{Branch: i}
	}
	if len(calls) == 0 {
		return txn.TryAgain{Branch: txn.All}
	}
	c := calls[rnd.IntN(len(calls))]
	r := txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.OK}
	switch {
	case c.Op == txn.Do && rnd.IntN(8) == 0:
		r.Outcome, r.Message = txn.Refused, "no"
	case rnd.IntN(6) == 0:
		r.Outcome = txn.Unknown
	}
	return r
}
