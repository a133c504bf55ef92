package main

var (
	guardScripts = test{pkg: "./sdk", run: "TestGuardScripts$"}
	guardRaces   = test{pkg: "./sdk", run: "TestConcurrentDoAndUndo$|TestFailed"}
	guardMySQL   = test{pkg: "./sdk", run: "TestEndOfTheHandlersOwn$|TestUndoMeetsItsDo$"}
	worldFaults  = test{pkg: "./sdk/sdktest", run: "TestFaults$|TestCrash"}
	claimSuite   = test{pkg: "./outbox/outboxtest", run: "TestSQLite/(Claim|ConcurrentClaims|Once)"}
)

// guards are faults of the participant's guard, and of the inbox below it.
var guards = []mutant{
	{
		name: "guard-tombstone-ignored", file: "sdk/guard.go",
		old:  "\tif !claim.First {\n\t\treturn replay(",
		with: "\tif !claim.First && string(claim.Reply) != string(markTombstone) {\n\t\treturn replay(",
		why:  "a do that arrives after its undo takes effect",
		test: []test{guardRaces, guardScripts},
	},
	{
		name: "guard-repeat-runs-again", file: "sdk/guard.go",
		old:  "\tif !claim.First {\n\t\treturn replay(",
		with: "\tif !claim.First && string(claim.Reply) == string(markTombstone) {\n\t\treturn replay(",
		why:  "a do that is delivered twice takes effect twice",
		test: []test{worldFaults, guardScripts},
	},
	{
		name: "guard-undo-runs-again", file: "sdk/guard.go",
		old:  "case !claim.First && string(claim.Reply) == op.String():\n\t\treturn nil, nil",
		with: "case !claim.First && string(claim.Reply) == op.String():\n\t\tclaim.First = true",
		why:  "an undo that is delivered twice is undone twice",
		test: []test{worldFaults, guardScripts},
	},
	{
		name: "guard-confirm-after-cancel", file: "sdk/guard.go",
		old:  "\tcase !claim.First:\n\t\treturn did, Refuse(fmt.Errorf(\"%s came after",
		with: "\tcase false:\n\t\treturn did, Refuse(fmt.Errorf(\"%s came after",
		why:  "a branch is confirmed and cancelled",
		test: []test{guardScripts},
	},
	{
		name: "guard-undo-of-nothing-runs", file: "sdk/guard.go",
		old:  "\tcase claim.First: // with a tombstone\n\t\treturn nil, nil",
		with: "\tcase claim.First && op == txn.Confirm:\n\t\treturn nil, nil",
		why:  "an undo whose do never ran runs",
		test: []test{worldFaults, guardScripts},
	},
	{
		name: "guard-commits-failures", file: "sdk/guardtx.go",
		old:  "if rerr := tx.Rollback(); rerr != nil {",
		with: "if rerr := tx.Commit(); rerr != nil {",
		why:  "what a handler wrote before it failed stays",
		test: []test{worldFaults, guardScripts, guardRaces},
	},
	{
		name: "guard-reply-not-kept", file: "sdk/guard.go",
		old:  "return reply, g.record(ctx, tx, p, append([]byte{markDone}, reply...))",
		with: "return reply, g.record(ctx, tx, p, []byte{markDone})",
		why:  "a repeated do answers with another reply than the first",
		test: []test{worldFaults, guardScripts},
	},
	{
		name: "guard-without-witness", file: "sdk/guard.go",
		old:  "if err == nil && p.kept {",
		with: "if err == nil && p.kept && p.key == \"\" {",
		why:  "a handler that passes over a deadlock has taken effect, and nothing stands",
		test: []test{guardMySQL},
	},
	{
		name: "guard-undo-sees-what-was-before-its-do", file: "sdk/guard.go",
		old:  "if err == nil && looks && !claim.First {",
		with: "if err == nil && looks && claim.First && len(claim.Reply) > 0 {",
		why:  "an undo that meets its do under way works with a snapshot without it",
		test: []test{guardMySQL},
	},
	{
		name: "sdk-error-is-refusal", file: "sdk/perform.go",
		old:  "\tdefault:\n\t\tcode, out.Message = txn.Unknown,",
		with: "\tdefault:\n\t\tcode, out.Message = txn.Refused,",
		why:  "an error that is no refusal counts as one",
		test: []test{worldFaults, guardScripts, {pkg: "./sdk", run: "TestFailed|TestCallTimeout"}},
	},
	{
		name: "inbox-claims-nothing", file: "outbox/inbox/claim.go",
		old:  "\tif n == 1 {\n\t\treturn Claimed{First: true}, nil",
		with: "\tif n >= 0 {\n\t\treturn Claimed{First: true}, nil",
		why:  "every claim is the first",
		test: []test{claimSuite},
	},
	{
		name: "inbox-duplicate-runs", file: "outbox/inbox/once.go",
		old:  "\t\tif !first {\n\t\t\treturn errDuplicate",
		with: "\t\tif false {\n\t\t\treturn errDuplicate",
		why:  "a message that was handled is handled again",
		test: []test{{pkg: "./outbox/inbox", run: "TestConsumerHandlesOnceInOrder$|TestCrashBeforeOffsetCommit$"}, claimSuite},
	},
	{
		name: "inbox-failure-is-remembered", file: "outbox/inbox/once.go",
		old:  "\t\town = fn(tx)\n\t\treturn own\n",
		with: "\t\town = fn(tx)\n\t\treturn nil\n",
		why:  "a message whose handler failed counts as handled: marked, and the work not done",
		test: []test{claimSuite, {pkg: "./outbox/inbox", run: "TestConsumerHandlesOnceInOrder$"}},
	},
	{
		name: "consumer-passes-a-gap", file: "outbox/inbox/consumertrack.go",
		old:  "for len(t.items) > 0 && t.items[0].done {",
		with: "for len(t.items) > 0 {",
		why:  "an offset is committed before what is before it was handled",
		test: []test{{pkg: "./outbox/inbox", run: "TestCrashBeforeOffsetCommit$|TestTrackerNeverPassesAGap$"}},
	},
}
