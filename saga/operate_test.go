package saga_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// operatorEvent is the event of a verb.
func operatorEvent(v txn.Verb, branch int) txn.Event {
	switch v {
	case txn.VerbRetry:
		return txn.TryAgain{Branch: branch}
	case txn.VerbSkip:
		return txn.Skip{Branch: branch}
	case txn.VerbComplete:
		return txn.Complete{Branch: branch, Reply: []byte("by hand")}
	case txn.VerbFail:
		return txn.Fail{Branch: branch, Message: "failed by hand"}
	case txn.VerbAbandon:
		return txn.Abandon{Reason: txn.Reason{Message: "given up"}}
	}
	return txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted, Message: "by hand"}}
}

var verbs = []txn.Verb{txn.VerbRetry, txn.VerbSkip, txn.VerbComplete, txn.VerbFail, txn.VerbAbort, txn.VerbAbandon}

// checkVerb: a verb's event is taken exactly when Permits and Legal say so, and
// otherwise changes nothing. An abort that comes twice or too late is no error.
func checkVerb(d *saga.Definition, s saga.State, branch int, v txn.Verb) (saga.State, error) {
	if v.Whole() && branch != txn.All {
		branch = txn.All // its event names no step
	}
	permits := s.Permits(d, branch, v)
	next, err := s.Advance(d, operatorEvent(v, branch))
	same := reflect.DeepEqual(next, s)
	switch {
	case slices.Contains(s.Legal(d, branch), v) != (permits == nil):
		return s, fmt.Errorf("%s %d: Legal says %v, Permits %w", v, branch, s.Legal(d, branch), permits)
	case permits == nil && err != nil:
		return s, fmt.Errorf("%s %d is legal, but refused: %w", v, branch, err)
	case permits != nil && !errors.Is(permits, txn.ErrIllegal):
		return s, fmt.Errorf("%s %d: Permits says %w", v, branch, permits)
	case permits != nil && (!same || v != txn.VerbAbort && (err == nil || err.Error() != permits.Error())):
		return s, fmt.Errorf("%s %d: Permits says %w, Advance %w", v, branch, permits, err)
	case permits == nil && same && v != txn.VerbRetry:
		return s, fmt.Errorf("%s %d is legal, but changes nothing", v, branch)
	}
	return next, nil
}

// rescue ends a saga with a person's word about whatever is stuck.
func rescue(t *testing.T, d *saga.Definition, s saga.State) {
	t.Helper()
	for s = finish(t, d, s); s.Phase == txn.Parked; s = finish(t, d, s) {
		i := slices.IndexFunc(s.Steps, func(st saga.StepState) bool { return st.Phase == saga.Stuck })
		next, err := s.Advance(d, txn.Complete{Branch: i})
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	if !s.Phase.Finished() {
		t.Fatalf("no word of a person ends it: %s", describeState(d, s))
	}
}

// explore visits every state that a saga can come to, up to the number of
// attempts, and calls visit with each.
func explore(t *testing.T, d *saga.Definition, visit func(s saga.State)) int {
	t.Helper()
	seen := make(map[string]bool)
	queue := []saga.State{saga.New(d)}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		key := fmt.Sprint(s.Phase, s.Cause == nil)
		for _, st := range s.Steps {
			key += fmt.Sprint(st.Phase, st.Attempt == 0)
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		visit(s)
		queue = append(queue, successors(t, d, s)...)
	}
	return len(seen)
}

// successors returns what s can become, by each outcome of each call and by each
// verb.
func successors(t *testing.T, d *saga.Definition, s saga.State) []saga.State {
	t.Helper()
	var all []saga.State
	for _, c := range s.Outstanding(d) {
		for o := txn.OK; o <= txn.Unknown; o++ {
			next, err := s.Advance(d, txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: o})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, next)
		}
	}
	for branch := txn.All; branch < len(s.Steps); branch++ {
		for _, v := range verbs {
			next, err := checkVerb(d, s, branch, v)
			if err == nil {
				err = next.Check(d)
			}
			fence := s.Phase == txn.RollingBack && next.Phase == txn.Committed // whose pivot stands
			if err == nil && next.Phase != s.Phase && !txn.Legal(s.Phase, next.Phase) && !fence {
				err = fmt.Errorf("%s to %s is no legal transition", s.Phase, next.Phase)
			}
			if err != nil {
				t.Fatalf("%s\n%s %d\n%s\n%v", describeState(d, s), v, branch, describeState(d, next), err)
			}
			all = append(all, next)
		}
	}
	return all
}

// legalVerbs is the table of what an operator may do about a step: by where the
// saga is heading, the step's kind (any where it makes no difference) and phase.
// What is not in it has no verb.
var legalVerbs = map[string]string{
	"onward any PENDING":           "skip",
	"onward any DOING":             "retry skip complete fail",
	"onward any STUCK":             "retry skip complete",
	"fenced retriable PENDING":     "skip",
	"fenced retriable DOING":       "skip complete",
	"fenced retriable REFUSED":     "skip complete",
	"fenced pivot UNDOING":         "retry complete fail",
	"back compensatable UNDOING":   "retry skip complete fail",
	"back compensatable STUCK":     "retry skip complete",
	"onward any DONE":              "",
	"onward any SKIPPED":           "",
	"fenced any DONE":              "",
	"fenced any SKIPPED":           "",
	"back any PENDING":             "",
	"back any DONE":                "",
	"back any SKIPPED":             "",
	"back any UNDO_SKIPPED":        "",
	"back any UNDONE":              "",
	"back retriable DOING":         "",
	"back retriable REFUSED":       "",
	"COMMITTED any DONE":           "",
	"COMMITTED any SKIPPED":        "",
	"ROLLED_BACK any PENDING":      "",
	"ROLLED_BACK any SKIPPED":      "",
	"ROLLED_BACK any UNDONE":       "",
	"ROLLED_BACK any UNDO_SKIPPED": "",
	"ROLLED_BACK retriable DOING":  "", "ROLLED_BACK retriable DONE": "", "ROLLED_BACK retriable REFUSED": "",
	"ABANDONED any PENDING": "", "ABANDONED any DOING": "", "ABANDONED any DONE": "", "ABANDONED any REFUSED": "",
	"ABANDONED any UNDOING": "", "ABANDONED any UNDONE": "", "ABANDONED any STUCK": "", "ABANDONED any SKIPPED": "",
	"ABANDONED any UNDO_SKIPPED": "",
}

// legalWhole is the same about the whole.
var legalWhole = map[string]string{
	"onward": "retry abort abandon", "onward behind the pivot": "retry abandon",
	"fenced": "retry abandon", "back": "retry abandon", "COMMITTED": "", "ROLLED_BACK": "", "ABANDONED": "",
}

// heading tells where a saga is going, from its phases alone.
func heading(d *saga.Definition, s saga.State) (heading string, behindPivot bool) {
	before := closure(d)
	for i, st := range d.Steps {
		if st.Kind != saga.Pivot {
			continue
		}
		if s.Steps[i].Phase == saga.Undoing && !s.Phase.Finished() {
			return "fenced", false
		}
		behindPivot = s.Steps[i].Phase == saga.Done || s.Steps[i].Phase == saga.Skipped
		for j := range d.Steps {
			p := s.Steps[j].Phase
			behindPivot = behindPivot && (!before[i][j] || p == saga.Done || p == saga.Skipped)
		}
	}
	switch {
	case s.Phase.Finished():
		return s.Phase.String(), false
	case s.Phase == txn.Running, behindPivot:
		return "onward", behindPivot
	}
	return "back", false
}

func spell(verbs []txn.Verb) string {
	words := make([]string, len(verbs))
	for i, v := range verbs {
		words[i] = v.String()
	}
	return strings.Join(words, " ")
}

// legalSagas are a few sagas that come through every row of the tables.
var legalSagas = map[string]string{
	"linear":   "a\nb\nc",
	"parallel": "a\nb after=none\nc after=a,b\nlog kind=retriable after=a",
	"pivot":    "a\ncharge kind=pivot\nship kind=retriable\nmail kind=retriable",
	"beside": "a\nlog kind=retriable after=none\ncharge kind=pivot after=a\naudit kind=retriable after=a\n" +
		"ship kind=retriable after=charge,audit",
	"two": "a\nb after=none\ncharge kind=pivot after=a,b\nship kind=retriable",
}

// TestLegal visits every state of a few sagas and holds Legal against the
// tables above, and Advance against Legal.
func TestLegal(t *testing.T) {
	met := make(map[string]bool)
	look := func(table map[string]string, got string, keys ...string) {
		for _, key := range keys {
			if want, ok := table[key]; ok {
				met[key] = true
				if got != want {
					t.Fatalf("%s: got %q, want %q", key, got, want)
				}
				return
			}
		}
		t.Fatalf("%v is not in the table; legal: %q", keys, got)
	}
	for name, text := range legalSagas {
		d := parseDefinition(t, text)
		n := explore(t, d, func(s saga.State) {
			to, behind := heading(d, s)
			whole := to
			if behind {
				whole += " behind the pivot"
			}
			look(legalWhole, spell(s.Legal(d, txn.All)), whole)
			for i, st := range s.Steps {
				look(legalVerbs, spell(s.Legal(d, i)),
					fmt.Sprint(to, " ", d.Steps[i].Kind, " ", st.Phase), fmt.Sprint(to, " any ", st.Phase))
			}
			roundTrip(t, d, s)
			rescue(t, d, s)
		})
		t.Logf("%s: %d states", name, n)
	}
	for _, table := range []map[string]string{legalVerbs, legalWhole} {
		for _, key := range slices.Sorted(maps.Keys(table)) {
			if !met[key] {
				t.Errorf("no saga ever was %q", key)
			}
		}
	}
}

// roundTrip: a state is stored and loaded as it was, in the oldest version that
// has a word for it.
func roundTrip(t *testing.T, d *saga.Definition, s saga.State) {
	t.Helper()
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := saga.DecodeState(d, data)
	if err != nil || !reflect.DeepEqual(again, s) {
		t.Fatalf("%s is not what was stored: %v\n%+v\n%+v", data, err, s, again)
	}
	if v1 := strings.HasPrefix(string(data), `{"v":1,`); v1 == strings.Contains(string(data), "SKIPPED") {
		t.Fatalf("the version is wrong: %s", data)
	}
}

// TestLegalOfNothing: what there is not has no verb, and asking is no panic.
func TestLegalOfNothing(t *testing.T) {
	d := parseDefinition(t, "a\nb")
	s := saga.New(d)
	for _, branch := range []int{-2, 2} {
		if got := s.Legal(d, branch); got != nil {
			t.Errorf("step %d: got %v", branch, got)
		}
		for _, v := range verbs[:4] {
			if err := s.Permits(d, branch, v); !errors.Is(err, saga.ErrBadEvent) {
				t.Errorf("%s %d: got %v", v, branch, err)
			}
			next, err := s.Advance(d, operatorEvent(v, branch))
			if !errors.Is(err, saga.ErrBadEvent) || !reflect.DeepEqual(next, s) {
				t.Errorf("%s %d: got %v", v, branch, err)
			}
		}
	}
	for _, v := range []txn.Verb{0, 7, 255} {
		if err := s.Permits(d, 0, v); !errors.Is(err, saga.ErrBadEvent) {
			t.Errorf("%s: got %v", v, err)
		}
	}
	for _, v := range []txn.Verb{txn.VerbAbort, txn.VerbAbandon} {
		if err := s.Permits(d, 0, v); !errors.Is(err, txn.ErrIllegal) || !strings.Contains(err.Error(), "about the whole saga") {
			t.Errorf("%s: got %v", v, err)
		}
	}
}
