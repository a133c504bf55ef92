package main

const aheadFile = "coordinator/internal/ahead/ahead.go"

var (
	whole     = test{pkg: "./coordinator/internal/simulation", run: "TestSimulation$", env: []string{"AMENDS_SIM_N=150"}}
	callAhead = promise("TestCallsAheadOfTheStore")
)

// ahead are faults of what the engine does before its last transitions are stored.
var ahead = []mutant{
	{
		name: "ahead-of-an-unrecorded-reply", file: enginePkg[2:] + "/soft.go",
		old:  "if !o.Recorded || o.Outcome != txn.OK || t.dirty && !t.soft",
		with: "if o.Outcome != txn.OK || t.dirty && !t.soft",
		why:  "steps are called on a reply that is not stored, and may be another one next time",
		test: []test{callAhead},
	},
	{
		name: "ahead-past-a-refusal", file: enginePkg[2:] + "/soft.go",
		old:  "if !o.Recorded || o.Outcome != txn.OK || t.dirty && !t.soft || t.base == nil || t.rec.Paused ||\n\t\tw.draining || w.shards[t.rec.Shard].leaving || next.phase() != t.m.phase() {",
		with: "if !o.Recorded || t.dirty && !t.soft || t.base == nil {",
		why:  "a saga that turned back undoes before that is stored",
		test: []test{callAhead},
	},
	{
		name: "ahead-of-what-cannot-be-undone", file: aheadFile,
		old:  "case def.Kind != saga.Compensatable && !passed:",
		with: "case false:",
		why:  "a pivot, or a step that cannot be undone, is called before what is before it is stored",
		test: []test{callAhead},
	},
	{
		name: "ahead-presumes-nothing", file: enginePkg[2:] + "/stall.go",
		old:  "if !ok || !o.Ahead {",
		with: "if !ok || true {",
		why:  "what was called ahead of what was stored is not undone after a crash",
		test: []test{whole, promise("TestWhatWasCalledAheadIsUndone")},
	},
	{
		name: "ahead-is-forgotten", file: enginePkg[2:] + "/stall.go",
		old:  "o.Presumed = m.s.Presumed()",
		with: "o.Presumed = nil",
		why:  "whoever takes over from who took over does not know that calls may be ahead",
		test: []test{promise("TestWhatWasCalledAheadIsUndone")},
	},
	{
		name: "ahead-ends-before-durable", file: enginePkg[2:] + "/wait.go",
		old:  "\t\t\trec.State = uint8(txn.Running)\n",
		with: "\t\t\trec.State = uint8(t.m.phase())\n",
		why:  "an end is told before it is stored",
		test: []test{callAhead},
	},
	{
		name: "ahead-of-a-check", file: enginePkg[2:] + "/soft.go",
		old:  "o.Outcome != txn.OK || m.d.Check.Action != \"\" ||",
		with: "o.Outcome != txn.OK ||",
		why:  "who sends a two-phase message works on a try that a crash makes unanswered, and so turns back",
		test: []test{promise("TestTryIsAnsweredAhead")},
	},
	{
		name: "ahead-commit-does-not-wait", file: enginePkg[2:] + "/request.go",
		old:  "case errors.Is(err, tcc.ErrTryPending) && t.asksAgain():",
		with: "case false:",
		why:  "after a crash a commit is refused, though its caller heard that every try took effect",
		test: []test{promise("TestCommitAfterALostAnswer")},
	},
}
