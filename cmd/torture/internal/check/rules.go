package check

import (
	"fmt"
	"slices"
)

// Finding says whether one promise holds.
type Finding struct {
	Promise    string   `json:"promise"`
	Figures    string   `json:"figures"`    // what was looked at
	Violations int      `json:"violations"` // 0: it holds
	Examples   []string `json:"examples,omitempty"`
}

// rules are the promises.
var rules = []func(*books) Finding{
	startsEnd, endsAsTold, moneyConserved, effectsOnce, countersExact, listsInOrder, handledOnce, noGhosts, intentsStart,
	actsDurable, auditChains, processesStay,
}

// judge applies every rule.
func judge(b *books) []Finding {
	var found []Finding
	for _, rule := range rules {
		found = append(found, rule(b))
	}
	return found
}

func (v *verdict) wrong(format string, args ...any) {
	if len(v.problems) == maxProblems {
		v.more++
		return
	}
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

func (v *verdict) as(promise, format string, args ...any) Finding {
	n := len(v.problems) + v.more
	if v.more > 0 {
		v.problems = append(v.problems, fmt.Sprintf("and %d more", v.more))
	}
	return Finding{promise, fmt.Sprintf(format, args...), n, v.problems}
}

// steps of each kind of transaction that commits, with the operations that have
// to have taken place.
var steps = map[string][]string{
	"transfer":         {"debit", "credit", "note"},
	"transfer-counted": {"debit", "count", "credit", "note"},
}

const (
	operated = "operated" // operators force it: their word stands for a participant's
	swap     = "swap"
)

// startsEnd: what was acknowledged is there and has ended; and so has all else.
func startsEnd(b *books) Finding {
	var v verdict
	acked := 0
	for _, l := range b.told {
		if l.What != "started" {
			continue
		}
		acked++
		if _, known := b.transactions[l.ID]; !known {
			v.wrong("%s: its start was acknowledged, and nobody knows it", l.ID)
		}
	}
	for gid, t := range b.transactions {
		switch {
		case !t.state.ended():
			v.wrong("%s: is still %s (paused: %v)", gid, t.state, t.paused)
		case t.state == abandoned && t.name != operated:
			v.wrong("%s: is %s, and no operator may have asked for it", gid, t.state)
		}
	}
	return v.as("every acknowledged start exists, and ended", "%d acknowledged, %d transactions", acked, len(b.transactions))
}

// endsAsTold: whoever was told an end was told the end that there is.
func endsAsTold(b *books) Finding {
	var v verdict
	n := 0
	for _, l := range b.told {
		if l.What != "ended" {
			continue
		}
		n++
		if t := b.transactions[l.ID]; t.state.String() != l.Told {
			v.wrong("%s: is %s, and a client was told %s", l.ID, t.state, l.Told)
		}
	}
	return v.as("ends are as clients were told", "%d ends", n)
}

// moneyConserved: the total is as it was, nobody has less than nothing, nothing
// is set aside, and every account is what was done to it.
func moneyConserved(b *books) Finding {
	var v verdict
	type place struct {
		side string
		id   int
	}
	moved := map[place]int64{}
	for _, e := range b.effects {
		moved[place{e.side, e.account}] += e.cents
	}
	var total int64
	for _, a := range b.accounts {
		total += a.cents + a.held
		if a.cents < 0 || a.held != 0 {
			v.wrong("account %d of %s: %d cents, %d held", a.id, a.side, a.cents, a.held)
		}
		if want := b.opening + moved[place{a.side, a.id}]; a.cents != want {
			v.wrong("account %d of %s: %d cents, by its effects %d", a.id, a.side, a.cents, want)
		}
	}
	if want := b.opening * int64(len(b.accounts)); total != want {
		v.wrong("%d cents in all, want %d", total, want)
	}
	return v.as("money is conserved, no account below zero", "%d cents on %d accounts", total, len(b.accounts))
}

// branch is one of a transaction, on one side.
type branch struct{ gid, name string }

// effectsOnce: each effect took place once or not at all, as its transaction
// ended.
func effectsOnce(b *books) Finding {
	var v verdict
	did := map[branch]map[string]int{}
	for _, e := range b.effects {
		of := branch{e.gid, e.branch}
		if did[of] == nil {
			did[of] = map[string]int{}
		}
		did[of][e.op]++
	}
	for of, ops := range did {
		t, known := b.transactions[of.gid]
		if !known {
			v.wrong("%s: branch %s took effect, and nobody knows the transaction", of.gid, of.name)
		}
		for op, n := range ops {
			if n != 1 {
				v.wrong("%s: %s of branch %s took effect %d times", of.gid, op, of.name, n)
			}
		}
		judgeBranch(&v, of, t, ops)
	}
	for gid, t := range b.transactions {
		for _, step := range steps[t.name] {
			if t.state == committed && did[branch{gid, step}]["do"] != 1 {
				v.wrong("%s: committed, and step %s took no effect", gid, step)
			}
		}
	}
	return v.as("each effect exactly once", "%d effects of %d branches", len(b.effects), len(did))
}

// judgeBranch compares what a branch did with how its transaction ended.
func judgeBranch(v *verdict, of branch, t transaction, ops map[string]int) {
	first, back := ops["do"]+ops["try"], ops["undo"]+ops["cancel"]
	if back > first || ops["confirm"] > ops["try"] {
		v.wrong("%s: branch %s was undone or confirmed without having been done: %v", of.gid, of.name, ops)
	}
	if t.name == operated {
		return
	}
	switch {
	case t.state == committed && (back != 0 || ops["try"] != ops["confirm"]):
		v.wrong("%s: committed, and branch %s is not: %v", of.gid, of.name, ops)
	case t.state == rolledBack && (first != back || ops["confirm"] != 0):
		v.wrong("%s: rolled back, and branch %s is not: %v", of.gid, of.name, ops)
	}
}

// countersExact: a counter is as high as its effects say.
func countersExact(b *books) Finding {
	var v verdict
	want := map[string]int64{}
	for _, e := range b.effects {
		if t := b.transactions[e.gid]; t.name == operated || e.branch == "count" {
			want[e.side] += map[string]int64{"do": 1, "undo": -1}[e.op]
		}
	}
	for _, side := range []string{east, west} {
		if b.counters[side] != want[side] {
			v.wrong("counters of %s: %d, want %d", side, b.counters[side], want[side])
		}
	}
	return v.as("counters are exact", "%d in the east, %d in the west", b.counters[east], b.counters[west])
}

// listsInOrder: entries are numbered without a gap, and the log tells of them in
// their order.
func listsInOrder(b *books) Finding {
	var v verdict
	last := map[int]int64{}
	entries := slices.Clone(b.entries)
	slices.SortFunc(entries, func(a, b entry) int { return int(a.n - b.n) })
	for _, e := range entries {
		if e.n != last[e.list]+1 {
			v.wrong("list %d: entry %d follows entry %d", e.list, e.n, last[e.list])
		}
		last[e.list] = e.n
	}
	first, known := map[int]int64{}, map[string]bool{}
	for _, r := range b.log {
		if known[r.msg] { // again, which the inbox drops
			continue
		}
		known[r.msg] = true
		if r.n != first[r.list]+1 {
			v.wrong("the log: entry %d of list %d follows entry %d (message %s)", r.n, r.list, first[r.list], r.msg)
		}
		first[r.list] = r.n
	}
	return v.as("lists are published in order", "%d entries, %d records, %d of them again", len(entries), len(b.log), len(b.log)-len(known))
}
