package main

import "slices"

// Where the faults of each room are looked for.
var (
	sagaSim    = test{pkg: "./saga", run: "TestSimulation$"}
	sagaScript = test{pkg: "./saga", run: "TestScript"}
	tccSim     = test{pkg: "./tcc", run: "TestSimulation$"}
	tccScript  = test{pkg: "./tcc", run: "TestScript"}
)

var mutants = slices.Concat(machines, engine, guards, relays, ahead)

// machines are faults of the pure machines.
var machines = []mutant{
	{
		name: "saga-undo-only-done", file: "saga/advance.go",
		old:  "return k != Retriable && st.Attempt > 0 &&",
		with: "return k != Retriable && (st.Phase == Done || st.Phase == Undoing || st.Phase == Stuck) &&",
		why:  "a step that was refused, or whose outcome is unknown, is not undone",
		test: []test{sagaSim},
	},
	{
		name: "saga-undo-any-order", file: "saga/advance.go",
		old:  "if owes && !waits.has(i) &&",
		with: "if owes &&",
		why:  "a step is undone while one that depends on it still stands",
		test: []test{sagaSim},
	},
	{
		name: "saga-step-starts-early", file: "saga/advance.go",
		old:  "case st.Phase == Pending && ready:",
		with: "case st.Phase == Pending:",
		why:  "a step starts before those that it comes after are done",
		test: []test{sagaSim},
	},
	{
		name: "saga-old-refusal-counts", file: "saga/advance.go",
		old:  "if ev.Outcome != txn.OK && ev.Attempt != st.Attempt {",
		with: "if false {",
		why:  "a refusal or timeout of an attempt that is over counts for the present one",
		test: []test{sagaSim, sagaScript},
	},
	{
		name: "saga-back-past-the-pivot", file: "saga/advance.go",
		old:  "return s.Phase == txn.Running && !s.pivotPassed(d)",
		with: "return s.Phase == txn.Running",
		why:  "a saga turns back after its point of no return",
		test: []test{sagaSim},
	},
	{
		name: "saga-refused-pivot-is-undone", file: "saga/advance.go",
		old:  "case ev.Op == txn.Undo && d.Steps[ev.Branch].Kind == Pivot:\n\t\ts.goForward(ev)",
		with: "case ev.Op == txn.Undo && d.Steps[ev.Branch].Kind == Pivot:\n\t\tst.Phase = Undone",
		why:  "a pivot that turned out to stand counts as undone",
		test: []test{sagaSim},
	},
	{
		name: "saga-unknown-turns-back-the-first-time", file: "saga/advance.go",
		old:  "d.Steps[ev.Branch].Retry.Exhausted(st.Attempt) &&",
		with: "true &&",
		why:  "one lost answer turns a saga back, however many attempts it has",
		test: []test{sagaSim, sagaScript},
	},
	{
		name: "tcc-cancel-only-tried", file: "tcc/advance.go",
		old: "\tfor i := range s.Branches {\n\t\ts.Branches[i].Phase, s.Branches[i].Attempt = phase, 1\n\t}",
		with: "\tfor i := range s.Branches {\n\t\tif phase == Cancelling && s.Branches[i].Phase != Tried {\n" +
			"\t\t\ts.Branches[i].Phase = Cancelled\n\t\t\tcontinue\n\t\t}\n" +
			"\t\ts.Branches[i].Phase, s.Branches[i].Attempt = phase, 1\n\t}",
		why:  "a branch whose try is unknown is not cancelled",
		test: []test{tccSim},
	},
	{
		name: "tcc-commit-with-a-try-open", file: "tcc/advance.go",
		old:  "if i := s.pending(); i >= 0 {",
		with: "if i := s.pending(); i >= 1<<20 {",
		why:  "a transaction commits while a try is unanswered",
		test: []test{tccSim},
	},
	{
		name: "tcc-abort-after-commit", file: "tcc/advance.go",
		old:  "func (s State) abort(why txn.Reason) (State, error) {\n\tif s.decided() {",
		with: "func (s State) abort(why txn.Reason) (State, error) {\n\tif s.Phase.Finished() {",
		why:  "a transaction that was decided to commit is cancelled",
		test: []test{tccSim},
	},
	{
		name: "tcc-branch-after-decision", file: "tcc/advance.go",
		old:  "func (s State) try(b Branch) (State, error) {\n\tif s.decided() {",
		with: "func (s State) try(b Branch) (State, error) {\n\tif s.Phase.Finished() {",
		why:  "a branch that comes after the decision is tried",
		test: []test{tccSim, tccScript},
	},
	{
		name: "tcc-refused-confirm-counts", file: "tcc/advance.go",
		old:  "\tif ev.Op != txn.Try {\n\t\tb.Phase = Stuck\n\t\treturn\n\t}",
		with: "\tif ev.Op != txn.Try {\n\t\tb.succeeded(ev)\n\t\treturn\n\t}",
		why:  "a confirm or cancel that was refused counts as done",
		test: []test{tccSim, tccScript},
	},
}
