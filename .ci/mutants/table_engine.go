package main

const (
	enginePkg = "./coordinator/internal/engine"
	memPkg    = "./coordinator/store/memstore"
	sqlPkg    = "./coordinator/store/sqlstore"
)

var (
	operateSim = test{pkg: enginePkg, run: "TestOperatorSimulation$"}
	engineAll  = test{pkg: enginePkg, run: "."}
)

// promise is the engine's test of that name.
func promise(name string) test { return test{pkg: enginePkg, run: name + "$"} }

// engine are faults of the engine, its leases and its stores.
var engine = []mutant{
	{
		name: "engine-act-before-durable", file: enginePkg[2:] + "/worker.go",
		old:  "\tw.touch(t)\n\treturn nil\n}\n",
		with: "\tw.touch(t)\n\tt.schedule(time.Now(), w.rnd.Float64)\n\tw.send(t, time.Now())\n\treturn nil\n}\n",
		why:  "calls go out before the state that asks for them is stored",
		test: []test{operateSim, promise("TestNothingLeavesBeforeItIsDurable")},
	},
	{
		name: "engine-ack-before-durable", file: enginePkg[2:] + "/tx.go",
		old:  "func (t *tx) afterDurable(h hook) {\n\tif t.durable() {",
		with: "func (t *tx) afterDurable(h hook) {\n\tif true {",
		why:  "a start or decision is acknowledged before it is stored",
		test: []test{operateSim, promise("TestNothingLeavesBeforeItIsDurable"), engineAll},
	},
	{
		name: "engine-failed-commit-is-success", file: enginePkg[2:] + "/commit.go",
		old:  "\t\tw.e.meters.commitErrors.Add(1)\n",
		with: "\t\tw.e.meters.commitErrors.Add(1)\n\t\treturn nil\n",
		why:  "a commit that failed is taken as done",
		test: []test{operateSim, promise("TestExecutedButReplyLost"), engineAll},
	},
	{
		name: "engine-conflict-is-success", file: enginePkg[2:] + "/commit.go",
		old:  "\t\t\tb.err = err\n\t\t\treturn nil\n",
		with: "\t\t\treturn nil\n",
		why:  "a coordinator whose shard was taken believes that it has written",
		test: []test{operateSim, promise("TestPlainConflictIsNoSuccess"), engineAll},
	},
	{
		name: "engine-calls-without-a-lease", file: enginePkg[2:] + "/worker.go",
		old:  "held := w.holds(now)",
		with: "held := true",
		why:  "a coordinator that was paused for longer than its lease sends calls",
		test: []test{operateSim, promise("TestNothingIsSentOnALeaseThatRanOut")},
	},
	{
		name: "engine-keeps-lost-shards", file: enginePkg[2:] + "/lease.go",
		old:  "\tfor s := range lost {\n",
		with: "\tfor s := range map[int]bool{} {\n",
		why:  "a shard that is another's is kept in memory",
		test: []test{operateSim, promise("TestFencing|TestLostShardsWithdraw"), engineAll},
	},
	{
		name: "engine-believes-stale-reads", file: enginePkg[2:] + "/sweep.go",
		old:  "case seq < sh.since || !w.gone.current(rec.GID, seq):",
		with: "case seq < 0:",
		why:  "what was read before the shard was taken, or before it changed, is believed",
		test: []test{operateSim, promise("TestStaleReadIsNotUsed|TestReadBeforeAnotherOwnedIt"), engineAll},
	},
	{
		name: "engine-lost-wake-up", file: enginePkg[2:] + "/tx.go",
		old:  "\t\tif c.sent {\n\t\t\tearlier(now)\n\t\t} else {\n\t\t\tearlier(c.due)\n\t\t}\n",
		with: "\t\tif !c.sent {\n\t\t\tearlier(c.due)\n\t\t}\n",
		why:  "what was under way when a coordinator dies is never due again",
		test: []test{promise("TestCallUnderWayIsDueAtOnce|TestCrashIsRecovered"), operateSim, engineAll},
	},
	{
		name: "engine-paused-sends", file: enginePkg[2:] + "/worker.go",
		old:  "case c.sent || c.due.After(now) || t.rec.Paused:",
		with: "case c.sent || c.due.After(now):",
		why:  "calls of a paused transaction go out",
		test: []test{operateSim, promise("TestPause")},
	},
	{
		name: "engine-sends-while-leaving", file: enginePkg[2:] + "/worker.go",
		old:  "if w.draining || sh.leaving {",
		with: "if w.draining {",
		why:  "calls go out of a shard that is on its way to another owner",
		test: []test{promise("TestNothingIsSentWhileLeaving")},
	},
	{
		name: "engine-gives-what-is-written", file: enginePkg[2:] + "/handover.go",
		old:  "if !sh.closed || writing[s] {",
		with: "if !sh.closed || writing[s] && false {",
		why:  "a shard goes to another owner while a commit of its is under way",
		test: []test{promise("TestHandOverWaitsForWhatIsWritten")},
	},
	{
		name: "engine-never-shut", file: enginePkg[2:] + "/worker.go",
		old:  "return s == nil || s.closed }",
		with: "return s == nil }",
		why:  "a shard that is closed for its next owner goes on changing",
		test: []test{promise("TestHandOverEndsUnderLoad")},
	},
	{
		name: "mem-no-epoch-check", file: memPkg[2:] + "/commit.go",
		old:  "|| s.data.leases[l.Shard].epoch != l.Epoch {",
		with: "{",
		why:  "the store takes what a coordinator writes whose shard is another's",
		test: []test{operateSim, {pkg: memPkg, run: "TestStore$"}},
	},
	{
		name: "mem-overwrite-later", file: memPkg[2:] + "/commit.go",
		old:  "} else if rec.Version > old.Version {",
		with: "} else {",
		why:  "a delayed repeat of a write replaces what was written after it",
		test: []test{operateSim, {pkg: memPkg, run: "TestStore$"}},
	},
	{
		name: "sql-no-epoch-check", file: sqlPkg[2:] + "/lease.go",
		old:  "!found || e.number != l.Epoch {",
		with: "!found || e.number < 0 {",
		why:  "the store takes what a coordinator writes whose shard is another's",
		test: []test{{pkg: sqlPkg, run: "TestStore$"}},
	},
	{
		name: "sql-overwrite-later", file: sqlPkg[2:] + "/sqlite_dialect.go",
		old:  "WHERE excluded.version > amends_transactions.version`",
		with: "WHERE excluded.version <> 0`",
		why:  "a delayed repeat of a write replaces what was written after it",
		test: []test{{pkg: sqlPkg, run: "TestStore$"}},
	},
	{
		name: "sql-same-epoch-again", file: sqlPkg[2:] + "/lease.go",
		old:  "SET owner = ?, epoch = epoch + 1, expires_at",
		with: "SET owner = ?, epoch = epoch + 0, expires_at",
		why:  "who takes a shard has the epoch of who lost it",
		test: []test{{pkg: sqlPkg, run: "TestStore$"}},
	},
}
