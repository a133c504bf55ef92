package main

var anyOrder = test{pkg: "./outbox", run: "TestOrderWhateverHappens$"}

// suite is a part of the suite that every dialect passes, on SQLite.
func suite(tests string) test {
	return test{pkg: "./outbox/outboxtest", run: "TestSQLite/^(" + tests + ")$"}
}

// relays are faults of the relay.
var relays = []mutant{
	{
		name: "relay-delete-before-ack", file: "outbox/batch.go",
		old:  "\t\tdefault:\n\t\t\tfailed = append(failed, i)\n",
		with: "\t\tdefault:\n\t\t\tp.pending.remove = append(p.pending.remove, r.id)\n",
		why:  "a message that the log did not take is deleted",
		test: []test{anyOrder, suite("PublisherFails|PartialAcknowledgement")},
	},
	{
		name: "relay-overtakes-a-failure", file: "outbox/batch.go",
		old:  "\tcase p.w.blocked(key):\n\t\tb.held = append(b.held, r)",
		with: "\tcase false:\n\t\tb.held = append(b.held, r)",
		why:  "behind a message that failed, the next of its key is sent",
		test: []test{anyOrder, suite("PublisherFails|PartialAcknowledgement|PoisonBlocksKey")},
	},
	{
		name: "relay-marks-before-publish", file: "outbox/send.go",
		old: "\tp.mark(ctx, b)\n}",
		with: "\tfor i, err := range b.errs {\n\t\tif err != nil {\n" +
			"\t\t\tp.r.keys.markAcked(ctx, p.lease.part, []string{p.ackID(&b.send[i])})\n\t\t\tp.r.keys.markSeen(ctx, []string{idempotency(&b.send[i].msg)})\n\t\t}\n\t}\n\tp.mark(ctx, b)\n}",
		why:  "what is not in the log is noted to be there",
		test: []test{{pkg: "./outbox", run: "TestFailedMessageIsNotSeen$"}, suite("CrashBeforeDeleteWithKeys|IdempotencyKeys")},
	},
	{
		name: "relay-no-fence", file: "outbox/lease.go",
		old:  "\tif n == 0 {\n\t\treturn time.Time{}, errLost",
		with: "\tif n < 0 {\n\t\treturn time.Time{}, errLost",
		why:  "a relay whose partition was taken goes on",
		test: []test{anyOrder, suite("PausedOwner|ManyRelays")},
	},
	{
		name: "relay-lease-outlives-its-time", file: "outbox/lease.go",
		old:  "return min(l.until.Sub(now), l.until.Round(0).Sub(now.Round(0)))",
		with: "return max(l.length, l.until.Sub(now))",
		why:  "a relay publishes when its lease has run out",
		test: []test{{pkg: "./outbox", run: "TestNothingIsPublishedAfterTheLease$"}, suite("PausedOwner")},
	},
	{
		name: "relay-taken-while-held", file: "outbox/sqlite.go",
		old:  "AND epoch = ? AND expires_at <= ",
		with: "AND epoch = ? AND expires_at >= 0 * ",
		why:  "a partition is taken from a relay whose lease still holds",
		test: []test{{pkg: "./outbox", run: "TestRenewedLeaseIsNotTaken$|TestNothingIsPublishedAfterTheLease$"}, suite("ManyRelays|PausedOwner")},
	},
	{
		name: "relay-watermark", file: "outbox/window.go",
		old:  "if _, ok := w.held[id]; !ok {",
		with: "if _, ok := w.held[id]; !ok && id < 0 {",
		why:  "a row that became visible behind the cursor is not read",
		test: []test{{pkg: "./outbox", run: "TestLateCommits$|TestWindow"}, suite("Gaps")},
	},
	{
		name: "relay-deletes-the-unread", file: "outbox/settle.go",
		old:  "if n := len(out); n > 0 && id <= out[n-1].to+1 {",
		with: "if n := len(out); n > 0 && id <= out[n-1].to+2 {",
		why:  "a row that became visible in a gap is deleted unread",
		test: []test{{pkg: "./outbox", run: "TestRuns$"}, suite("Gaps")},
	},
	{
		name: "relay-forgets-what-it-owes", file: "outbox/settle.go",
		old:  "\tif err != nil {\n\t\treturn fmt.Errorf(\"outbox: delete published rows",
		with: "\tif err != nil {\n\t\tp.settled()\n\t\treturn fmt.Errorf(\"outbox: delete published rows",
		why:  "rows that could not be deleted are not deleted later",
		test: []test{{pkg: "./outbox", run: "TestDeleteSurvivesErrors$"}},
	},
	{
		name: "relay-parks-without-order", file: "outbox/batch.go",
		old:  "\tcase behind:\n\t\tb.aside = append(b.aside,",
		with: "\tcase behind && false:\n\t\tb.aside = append(b.aside,",
		why:  "behind a message that is put aside, the next of its key is sent",
		test: []test{anyOrder, suite("ParkKey|DelayOrder")},
	},
}
