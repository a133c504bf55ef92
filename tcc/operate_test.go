package tcc_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

var verbs = []txn.Verb{txn.VerbRetry, txn.VerbSkip, txn.VerbComplete, txn.VerbFail, txn.VerbAbort, txn.VerbAbandon}

// operatorEvent is the event of a verb.
func operatorEvent(v txn.Verb, branch int) txn.Event {
	switch v {
	case txn.VerbRetry:
		return txn.TryAgain{Branch: branch}
	case txn.VerbSkip:
		return txn.Skip{Branch: branch}
	case txn.VerbComplete:
		return txn.Complete{Branch: branch, Reply: []byte("ignored")}
	case txn.VerbFail:
		return txn.Fail{Branch: branch, Message: "failed by hand"}
	case txn.VerbAbandon:
		return txn.Abandon{Reason: txn.Reason{Message: "given up"}}
	}
	return txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted, Message: "by hand"}}
}

// checkVerb: a verb's event is taken exactly when Permits and Legal say so, and
// otherwise changes nothing. An abort that comes twice is no error.
func checkVerb(s tcc.State, branch int, v txn.Verb) (tcc.State, error) {
	if v.Whole() && branch != txn.All {
		branch = txn.All // its event names no branch
	}
	permits := s.Permits(simDef, branch, v)
	next, err := s.Advance(simDef, operatorEvent(v, branch))
	same := reflect.DeepEqual(next, s)
	twice := v == txn.VerbAbort && s.Decision == txn.RollingBack && s.Phase != txn.Abandoned
	switch {
	case slices.Contains(s.Legal(simDef, branch), v) != (permits == nil):
		return s, fmt.Errorf("%s %d: Legal says %v, Permits %w", v, branch, s.Legal(simDef, branch), permits)
	case permits == nil && err != nil:
		return s, fmt.Errorf("%s %d is legal, but refused: %w", v, branch, err)
	case permits != nil && !errors.Is(permits, txn.ErrIllegal):
		return s, fmt.Errorf("%s %d: Permits says %w", v, branch, permits)
	case permits != nil && (!same || errors.Is(err, txn.ErrIllegal) == twice ||
		err != nil && !strings.HasSuffix(err.Error(), permits.Error())):
		return s, fmt.Errorf("%s %d: Permits says %w, Advance %w", v, branch, permits, err)
	case permits == nil && same && v != txn.VerbRetry:
		return s, fmt.Errorf("%s %d is legal, but changes nothing", v, branch)
	}
	return next, nil
}

// successors returns what s can become: by its application, by each outcome of
// each call, and by each verb.
func successors(t *testing.T, s tcc.State) []tcc.State {
	t.Helper()
	var all []tcc.State
	happens := func(ev txn.Event) {
		if next, err := s.Advance(simDef, ev); err == nil {
			all = append(all, next)
		}
	}
	if len(s.Branches) < 3 {
		happens(tcc.Try{Branch: tcc.Branch{Name: fmt.Sprint("b", len(s.Branches)), Action: "svc.act"}})
	}
	happens(tcc.Commit{})
	happens(tcc.Expire{})
	for _, c := range s.Outstanding(simDef) {
		for o := txn.OK; o <= txn.Unknown; o++ {
			happens(txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: o})
		}
	}
	for branch := txn.All; branch < len(s.Branches); branch++ {
		for _, v := range verbs {
			next, err := checkVerb(s, branch, v)
			if err == nil {
				err = next.Check(simDef)
			}
			if err == nil && next.Phase != s.Phase && !txn.Legal(s.Phase, next.Phase) {
				err = fmt.Errorf("%s to %s is no legal transition", s.Phase, next.Phase)
			}
			if err != nil {
				t.Fatalf("%s\n%s %d\n%s\n%v", describeState(s), v, branch, describeState(next), err)
			}
			all = append(all, next)
		}
	}
	return all
}

// legalVerbs is the table of what an operator may do about a branch, by its
// phase, in a transaction that has not ended.
var legalVerbs = map[tcc.BranchPhase]string{
	tcc.Trying: "retry fail", tcc.Tried: "",
	tcc.Confirming: "retry skip complete fail", tcc.Cancelling: "retry skip complete fail",
	tcc.Confirmed: "", tcc.Cancelled: "", tcc.Skipped: "",
	tcc.Stuck: "retry skip complete",
}

// legalWhole is the same about the whole, by its state and decision.
var legalWhole = map[string]string{
	"RUNNING": "retry abort abandon", "RUNNING, idle": "abort abandon",
	"RUNNING, checking": "retry complete abort abandon",
	"COMMITTING":        "retry abandon", "ROLLING_BACK": "retry abandon", "PARKED": "retry abandon",
	"COMMITTED": "", "ROLLED_BACK": "", "ABANDONED": "",
}

func spell(verbs []txn.Verb) string {
	words := make([]string, len(verbs))
	for i, v := range verbs {
		words[i] = v.String()
	}
	return strings.Join(words, " ")
}

// explore visits every state of up to three branches, up to the number of
// attempts, and calls visit with each.
func explore(t *testing.T, visit func(s tcc.State)) int {
	t.Helper()
	seen := make(map[string]bool)
	queue := []tcc.State{tcc.New(simDef)}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		key := fmt.Sprint(s.Phase, s.Decision, s.Cause == nil, s.Checking == nil)
		for _, b := range s.Branches {
			key += b.Phase.String()
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		visit(s)
		queue = append(queue, successors(t, s)...)
	}
	return len(seen)
}

// TestLegal visits every state of up to three branches and holds Legal against
// the tables above, and Advance against Legal.
func TestLegal(t *testing.T) {
	met := make(map[string]bool)
	n := explore(t, func(s tcc.State) {
		whole := s.Phase.String()
		if s.Phase == txn.Running && len(s.Outstanding(simDef)) == 0 {
			whole += ", idle"
		}
		if s.Checking != nil {
			whole += ", checking"
		}
		met[whole] = true
		if got := spell(s.Legal(simDef, txn.All)); got != legalWhole[whole] {
			t.Fatalf("%s: got %q, want %q", describeState(s), got, legalWhole[whole])
		}
		for i, b := range s.Branches {
			want := legalVerbs[b.Phase]
			if s.Phase.Finished() {
				want = ""
			} else {
				met[b.Phase.String()] = true
			}
			if got := spell(s.Legal(simDef, i)); got != want {
				t.Fatalf("%s: branch %d: got %q, want %q", describeState(s), i, got, want)
			}
		}
		roundTrip(t, s)
		rescue(t, s)
	})
	t.Logf("%d states", n)
	for p := range legalVerbs {
		if !met[p.String()] {
			t.Errorf("no branch ever was %s", p)
		}
	}
	for whole := range legalWhole {
		if !met[whole] {
			t.Errorf("no transaction ever was %s", whole)
		}
	}
}

// rescue ends a transaction with a person's word about whatever is stuck.
func rescue(t *testing.T, s tcc.State) {
	t.Helper()
	s = finish(t, simDef, s)
	for i, b := range s.Branches {
		if b.Phase == tcc.Stuck && s.Phase == txn.Parked {
			s = must(t, simDef, s, txn.Complete{Branch: i})
		}
	}
	if !s.Phase.Finished() {
		t.Fatalf("no word of a person ends it: %s", describeState(s))
	}
}

// roundTrip: a state is stored and loaded as it was, in the oldest version that
// has a word for it.
func roundTrip(t *testing.T, s tcc.State) {
	t.Helper()
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := tcc.DecodeState(simDef, data)
	if err != nil || !reflect.DeepEqual(again, s) {
		t.Fatalf("%s is not what was stored: %v\n%+v\n%+v", data, err, s, again)
	}
	want := 1
	if strings.Contains(string(data), "SKIPPED") {
		want = 2
	}
	if s.Checking != nil {
		want = 3
	}
	if !strings.HasPrefix(string(data), fmt.Sprintf(`{"v":%d,`, want)) {
		t.Fatalf("the version is wrong: %s", data)
	}
}

// TestLegalOfNothing: what there is not has no verb, and asking is no panic.
func TestLegalOfNothing(t *testing.T) {
	s := must(t, simDef, tcc.New(simDef), tcc.Try{Branch: tcc.Branch{Name: "b", Action: "s.a"}})
	for _, branch := range []int{-2, 1} {
		if got := s.Legal(simDef, branch); got != nil {
			t.Errorf("branch %d: got %v", branch, got)
		}
		for _, v := range verbs[:4] {
			if err := s.Permits(simDef, branch, v); !errors.Is(err, tcc.ErrBadEvent) {
				t.Errorf("%s %d: got %v", v, branch, err)
			}
			next, err := s.Advance(simDef, operatorEvent(v, branch))
			if !errors.Is(err, tcc.ErrBadEvent) || !reflect.DeepEqual(next, s) {
				t.Errorf("%s %d: got %v", v, branch, err)
			}
		}
	}
	for _, v := range []txn.Verb{0, 7, 255} {
		if err := s.Permits(simDef, 0, v); !errors.Is(err, tcc.ErrBadEvent) {
			t.Errorf("%s: got %v", v, err)
		}
	}
	for _, v := range []txn.Verb{txn.VerbAbort, txn.VerbAbandon} {
		if err := s.Permits(simDef, 0, v); !errors.Is(err, txn.ErrIllegal) || !strings.Contains(err.Error(), "about the whole") {
			t.Errorf("%s: got %v", v, err)
		}
	}
}
