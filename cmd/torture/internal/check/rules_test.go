package check

import (
	"fmt"
	"strings"
	"testing"

	"github.com/amends-dev/amends/cmd/torture/internal/load"
)

// trail adds the entries of a transaction's trail, each with its hash.
func (b *books) trail(gid string, kinds ...string) {
	t := b.transactions[gid]
	for _, kind := range kinds {
		e := event{gid: gid, shard: t.shard, seq: t.seq + 1, at: 1_000_000 * (t.seq + 1), kind: kind, prev: []byte(t.hash), data: []byte(`{}`)}
		if kind == "pause" {
			e.data = []byte(`{"request_id":"act-1"}`)
		}
		e.hash = []byte(e.digest())
		b.trails.add(e)
		t.seq, t.hash = e.seq, string(e.hash)
	}
	b.transactions[gid] = t
}

// do notes the effects of a branch.
func (b *books) do(side, gid, name string, account int, ops map[string]int64) {
	for _, op := range []string{"do", "undo", "try", "confirm", "cancel"} {
		if cents, did := ops[op]; did {
			b.effects = append(b.effects, effect{side, gid, name, op, account, cents})
		}
	}
}

// sound are books in which every promise holds: a transfer of 30 that committed,
// one of 50 that rolled back, a swap of 20, one entry written by the transfer and
// one by a client.
func sound() *books {
	b := &books{
		opening:  100,
		accounts: []account{{east, 0, 50, 0}, {west, 0, 150, 0}},
		counters: map[string]int64{east: 0, west: 1},
		transactions: map[string]transaction{
			"t-1": {name: "transfer-counted", state: committed}, "t-2": {name: "transfer", state: rolledBack},
			"s-1": {name: swap, state: committed}, "o-1": {name: operated, state: abandoned}, "i-1": {name: "transfer", state: rolledBack},
		},
		entries: []entry{{0, 1, "note-1", "t-1"}, {0, 2, "entry-1", ""}},
		log:     []record{{0, 1, "note-1", "a"}, {0, 2, "entry-1", "a"}, {0, 1, "note-1", "a"}},
		seen:    []record{{0, 1, "note-1", ""}, {0, 2, "entry-1", ""}},
		tallies: map[int]int64{0: 2, 1: 0},
		intents: map[string]bool{"i-1": true},
		told: []load.Line{
			{What: load.Started, ID: "t-1"}, {What: load.Ended, ID: "t-1", Told: "COMMITTED"}, {What: load.Appended, ID: "entry-1"},
			{What: load.Ghost, ID: "entry-2"}, {What: load.Ghost, ID: "i-2"}, {What: load.Intended, ID: "i-1"},
			{What: load.Acted, ID: "act-1", GID: "t-1", Name: "pause"},
		},
		trails: newTrails(nil),
	}
	b.do(east, "t-1", "debit", 0, map[string]int64{"do": -30})
	b.do(west, "t-1", "count", -1, map[string]int64{"do": 0})
	b.do(west, "t-1", "credit", 0, map[string]int64{"do": 30})
	b.do(notes, "t-1", "note", -1, map[string]int64{"do": 0})
	b.do(east, "t-2", "debit", 0, map[string]int64{"do": -50, "undo": 50})
	b.do(east, "s-1", "hold", 0, map[string]int64{"try": -20, "confirm": 0})
	b.do(west, "s-1", "hold#2", 0, map[string]int64{"try": 0, "confirm": 20})
	b.trail("t-1", "start", "pause", "replied")
	b.trail("t-2", "start")
	b.trail("s-1", "begin")
	b.trail("o-1", "start")
	b.trail("i-1", "start")
	return b
}

func TestSoundBooksHold(t *testing.T) {
	for _, f := range judge(sound()) {
		if f.Violations != 0 || f.Figures == "" {
			t.Errorf("%s: %d violations in sound books: %v (%s)", f.Promise, f.Violations, f.Examples, f.Figures)
		}
	}
}

// TestPlantedViolationsAreFound spoils sound books in one place each: the rule
// that looks after it finds it, and says so in words.
func TestPlantedViolationsAreFound(t *testing.T) {
	state := func(b *books, gid string, s state) {
		x := b.transactions[gid]
		x.state = s
		b.transactions[gid] = x
	}
	for _, planted := range []struct {
		name  string
		rule  func(*books) Finding
		spoil func(b *books)
		says  string
	}{
		{"a lost start", startsEnd, func(b *books) { b.told = append(b.told, load.Line{What: load.Started, ID: "t-9"}) }, "t-9: its start was acknowledged"},
		{"an unfinished one", startsEnd, func(b *books) { state(b, "t-2", 3) }, "t-2: is still ROLLING_BACK"},
		{"a parked one", startsEnd, func(b *books) { state(b, "t-2", parked) }, "t-2: is still PARKED"},
		{"one given up", startsEnd, func(b *books) { state(b, "t-2", abandoned) }, "t-2: is ABANDONED"},
		{"a wrong answer", endsAsTold, func(b *books) { state(b, "t-1", rolledBack) }, "t-1: is ROLLED_BACK, and a client was told COMMITTED"},
		{"money made", moneyConserved, func(b *books) { b.accounts[0].cents++ }, "201 cents in all, want 200"},
		{"money moved by nobody", moneyConserved, func(b *books) { b.accounts[0].cents++; b.accounts[1].cents-- }, "by its effects"},
		{"less than nothing", moneyConserved, func(b *books) { b.accounts[0].cents = -1 }, "-1 cents"},
		{"money set aside", moneyConserved, func(b *books) { b.accounts[0].held = 1 }, "1 held"},
		{"an effect twice", effectsOnce, func(b *books) { b.do(west, "t-1", "credit", 0, map[string]int64{"do": 30}) }, "took effect 2 times"},
		{"an undo twice", effectsOnce, func(b *books) { b.do(east, "t-2", "debit", 0, map[string]int64{"undo": 50}) }, "took effect 2 times"},
		{"a step left out", effectsOnce, func(b *books) { b.effects = b.effects[1:] }, "t-1: committed, and step debit took no effect"},
		{"an undo left out", effectsOnce, func(b *books) { state(b, "t-1", rolledBack) }, "t-1: rolled back, and branch debit is not"},
		{"an undo too many", effectsOnce, func(b *books) { state(b, "t-2", committed) }, "t-2: committed, and branch debit is not"},
		{"an undo of nothing", effectsOnce, func(b *books) { b.do(east, "o-1", "one", -1, map[string]int64{"undo": 0}) }, "without having been done"},
		{"half a swap", effectsOnce, func(b *books) { b.effects = b.effects[:len(b.effects)-1] }, "s-1: committed, and branch hold#2 is not"},
		{"an effect of nobody", effectsOnce, func(b *books) { b.do(east, "t-9", "debit", 0, map[string]int64{"do": 0}) }, "nobody knows the transaction"},
		{"a counter", countersExact, func(b *books) { b.counters[west] = 2 }, "counters of west: 2, want 1"},
		{"a gap in a list", listsInOrder, func(b *books) { b.entries[1].n = 3 }, "list 0: entry 3 follows entry 1"},
		{"the log out of order", listsInOrder, func(b *books) { b.log[0], b.log[1] = b.log[1], b.log[0] }, "entry 2 of list 0 follows entry 0"},
		{"a message handled twice", handledOnce, func(b *books) { b.seen = append(b.seen, b.seen[1]) }, "entry 2 was handled after entry 2"},
		{"a message out of order", handledOnce, func(b *books) { b.seen[0], b.seen[1] = b.seen[1], b.seen[0] }, "entry 1 was handled after entry 2"},
		{"a message never handled", handledOnce, func(b *books) { b.seen = b.seen[:1] }, "entry-1 (entry 2 of list 0) was never handled"},
		{"a message of nobody", handledOnce, func(b *books) { b.seen[0].msg = "x" }, "there is no such entry"},
		{"a tally", handledOnce, func(b *books) { b.tallies[0] = 3 }, "its counter says 3"},
		{"a message left", handledOnce, func(b *books) { b.waiting = 1 }, "1 messages are left"},
		{"a dead letter", handledOnce, func(b *books) { b.dead = 1 }, "1 are dead letters"},
		{"a ghost published", noGhosts, func(b *books) { b.log = append(b.log, record{msg: "entry-2"}) }, "entry-2 was rolled back, and is published"},
		{"a ghost written", noGhosts, func(b *books) { b.entries = append(b.entries, entry{msg: "entry-2"}) }, "entry-2 was rolled back, and is there"},
		{"a message of a rolled-back saga", noGhosts, func(b *books) { state(b, "t-1", rolledBack) }, "its transaction t-1 is ROLLED_BACK"},
		{"a message nobody wrote", noGhosts, func(b *books) { b.log = append(b.log, record{msg: "x"}) }, "nobody wrote it"},
		{"an entry lost", noGhosts, func(b *books) { b.entries = b.entries[:1] }, "entry-1 was committed, and is not there"},
		{"an intent that never began", intentsStart, func(b *books) { delete(b.transactions, "i-1") }, "i-1: its start was committed, and it never began"},
		{"a ghost that began", intentsStart, func(b *books) { b.transactions["i-2"] = transaction{} }, "i-2: its start was rolled back, and it began"},
		{"an intent lost", intentsStart, func(b *books) { delete(b.intents, "i-1") }, "i-1: its start was committed, and is not there"},
		{"a verb lost", actsDurable, func(b *books) { delete(b.trails.acts, "act-1") }, "act-1: pause of t-1 was acknowledged"},
		{"a verb twice", actsDurable, func(b *books) { b.trail("t-2", "pause") }, "request act-1 stands in the trail"},
		{"an entry changed", auditChains, func(b *books) {
			b.trails.add(event{gid: "t-9", seq: 1, kind: "start", hash: []byte("x")})
		}, "entry 1 is not what its hash says"},
		{"an entry cut out", auditChains, func(b *books) { b.trails.add(event{gid: "t-2", seq: 3}) }, "entry 3 follows entry 1"},
		{"a link cut", auditChains, func(b *books) { b.trails.add(event{gid: "t-2", seq: 2, prev: []byte("x")}) }, "does not hold the hash of the one before"},
		{"a trail cut short", auditChains, func(b *books) {
			x := b.transactions["t-1"]
			x.seq++
			b.transactions["t-1"] = x
		}, "its trail ends at entry 3, and the transaction says 4"},
		{"a process that ended", processesStay, func(b *books) { b.exits = []string{"c1 ended by itself"} }, "c1 ended by itself"},
	} {
		t.Run(planted.name, func(t *testing.T) {
			b := sound()
			planted.spoil(b)
			f := planted.rule(b)
			if all := strings.Join(f.Examples, "\n"); f.Violations == 0 || !strings.Contains(all, planted.says) {
				t.Errorf("%d violations, want one that says %q:\n%s", f.Violations, planted.says, all)
			}
		})
	}
}

// TestManyViolationsAreCounted: all are counted, some are shown.
func TestManyViolationsAreCounted(t *testing.T) {
	b := sound()
	for i := range 50 {
		b.told = append(b.told, load.Line{What: load.Started, ID: fmt.Sprint("gone-", i)})
	}
	f := startsEnd(b)
	if f.Violations != 50 || len(f.Examples) != maxProblems+1 {
		t.Errorf("%d violations, %d examples, want 50 and %d", f.Violations, len(f.Examples), maxProblems+1)
	}
}
