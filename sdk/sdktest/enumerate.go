package sdktest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// Limits of an enumeration.
const (
	// DefaultMaxStates is how many states Enumerate visits unless told
	// otherwise. A chain of five steps has 30,000 (two seconds), four steps all
	// parallel have half a million (a minute).
	DefaultMaxStates = 100_000
	// DefaultMaxRuns is how many paths are run through real handlers.
	DefaultMaxRuns = 2_000
	// maxAttempts is what a step's bound on attempts is cut to: two show as
	// much as ten.
	maxAttempts = 2
)

// EnumerateConfig tunes Enumerate. A nil *EnumerateConfig is all defaults.
type EnumerateConfig struct {
	// Refuses says whether a step's participant may refuse it. Default: unless
	// it is retriable.
	Refuses func(saga.Step) bool
	// Undoable says whether what the step did can be undone: false for an
	// action that is registered with a nil undo. Default: if it is compensatable.
	Undoable func(saga.Step) bool
	// Handlers sets up real participants, on fresh databases, for one path; nil:
	// the model alone. It is called once for each path that is run.
	Handlers func(r *Rig)
	// MaxRuns bounds those paths. Of more than these, evenly spread ones are
	// run, and the test's log says so. 0: DefaultMaxRuns.
	MaxRuns int
	// MaxStates bounds the states that are visited; a saga that has more fails
	// the test. 0: DefaultMaxStates.
	MaxStates int
}

// Report says what Enumerate looked at.
type Report struct {
	States int // of the saga and its participants together, all different
	Paths  int // ways from one of these to the next
	Runs   int // paths that were run through real handlers
}

// Enumerate walks through every way that the saga can take with this input:
// outstanding calls answered in any order, and each of them
//
//   - performed, and answered with what the participant says;
//   - refused, where Refuses allows it;
//   - performed, but the answer is lost, so that it is unknown and asked again;
//   - performed, but the participant dies before its commit, so that nothing of
//     it is left in the database;
//   - lost, so that it is unknown, and perhaps delivered late, at any time, even
//     after the end;
//   - performed, while the coordinator crashes before it hears the answer.
//
// At any time the saga may also be aborted (once: by its caller or its
// deadline), and the coordinator may crash: in every state what is stored is
// loaded again and must ask for the same calls. Each call is unknown once, or
// as often as its bound on attempts allows, which is cut to two.
//
// Every way must end with each step done, or with none: a step that is not
// retriable and still stands after a rollback, or a saga that is parked or never
// ends, fails the test, with the path that led there. (Retriable steps have, by
// their own word, nothing to undo.)
//
// Participants are a model, which behaves as the SDK's guard does. With Handlers
// each path, followed by the undisturbed way to the end, is also run through
// real handlers with the real guard and databases; Rig.Check then says whether
// what they left is right. That finds an undo that does not undo, or an effect
// outside of the handler's transaction.
func Enumerate[In any](t testing.TB, s saga.Saga[In], in In, cfg *EnumerateConfig) Report {
	t.Helper()
	def, err := s.Build(in)
	if err != nil {
		t.Fatalf("sdktest: enumerate %q: %v", s.Name(), err)
	}
	var c EnumerateConfig
	if cfg != nil {
		c = *cfg
	}
	c = c.withDefaults()
	for i := range def.Steps {
		def.Steps[i].Retry.Attempts = min(def.Steps[i].Retry.Attempts, maxAttempts)
	}
	g := &graph{def: def, cfg: c, seen: map[string]int{}}
	if err := g.explore(); err != nil {
		t.Fatalf("sdktest: enumerate %q: %v", s.Name(), err)
	}
	report := Report{States: len(g.nodes), Paths: len(g.edges)}
	if c.Handlers != nil {
		report.Runs = g.runAll(t)
	}
	return report
}

func (c EnumerateConfig) withDefaults() EnumerateConfig {
	if c.Refuses == nil {
		c.Refuses = func(s saga.Step) bool { return s.Kind != saga.Retriable }
	}
	if c.Undoable == nil {
		c.Undoable = func(s saga.Step) bool { return s.Kind == saga.Compensatable }
	}
	if c.MaxRuns <= 0 {
		c.MaxRuns = DefaultMaxRuns
	}
	if c.MaxStates <= 0 {
		c.MaxStates = DefaultMaxStates
	}
	return c
}

// choice is one thing that happens.
type choice struct {
	kind choiceKind
	step int
	op   txn.Op
}

type choiceKind uint8

const (
	performed  choiceKind = iota // and answered
	refused                      // nothing happened, and never will
	answerLost                   // performed, and the outcome is unknown
	callLost                     // not performed, and the outcome is unknown
	died                         // performed, but the participant dies before its commit
	crashed                      // performed, and the coordinator crashes before it hears of it
	cameLate                     // a lost call is performed, its answer is lost
	answerLate                   // a lost call is performed, and answered
	aborted
)

var choiceTexts = [...]string{
	performed:  "performed and answered",
	refused:    "refused",
	answerLost: "performed, the answer is lost",
	callLost:   "the call is lost",
	died:       "performed, the participant dies before its commit",
	crashed:    "performed, the coordinator crashes before it hears the answer",
	cameLate:   "a lost call arrives late, its answer is lost",
	answerLate: "a lost call arrives late and is answered",
}

func (c choice) text(def *saga.Definition) string {
	if c.kind == aborted {
		return "the saga is aborted"
	}
	return fmt.Sprintf("%s %s: %s", def.Steps[c.step].Name, c.op, choiceTexts[c.kind])
}

// pathText is a path for people.
func pathText(def *saga.Definition, path []choice) string {
	if len(path) == 0 {
		return "  (at once)"
	}
	lines := make([]string, len(path))
	for i, c := range path {
		lines[i] = fmt.Sprintf("  %d. %s", i+1, c.text(def))
	}
	return strings.Join(lines, "\n")
}
