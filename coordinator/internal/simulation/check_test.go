package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

func ctxError(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		status.Code(err) == codes.DeadlineExceeded || status.Code(err) == codes.Canceled
}

// delivered reports whether all messages have been published and handled.
func (w *world) delivered() bool {
	left := w.banks[0]
	left.turn <- struct{}{} // nobody is in the middle of a transaction
	defer func() { <-left.turn }()
	published := map[string]bool{}
	w.log.mu.Lock()
	for _, entries := range w.log.entries {
		for _, m := range entries {
			published[m.ID] = true
		}
	}
	w.log.mu.Unlock()
	for _, r := range left.rows(w.t, `SELECT account, msg FROM ledger`) {
		if !published[r[1]] {
			return false
		}
	}
	known := map[string]bool{}
	for _, r := range w.records() {
		known[r.GID] = true
	}
	for _, r := range left.rows(w.t, `SELECT gid, said FROM orders`) {
		if !known[r[0]] {
			return false
		}
	}
	return w.log.drained()
}

// unfinished says what has not ended.
func (w *world) unfinished() {
	for _, r := range w.records() {
		if !txn.State(r.State).Finished() {
			w.violation("%s is still %v, paused %v, next %v, %s", r.GID, txn.State(r.State), r.Paused, r.NextAt, r.Reason)
		}
	}
	if !w.delivered() {
		w.violation("messages are not delivered: offsets %v", w.log.offsets)
	}
}

// check holds what everybody was told against what the databases and the log
// say.
func (w *world) check() {
	records := map[string]store.Record{}
	for _, r := range w.records() {
		records[r.GID] = r
		w.checkTrail(r)
	}
	for _, gid := range slices.Sorted(maps.Keys(w.facts)) {
		w.checkFact(gid, w.facts[gid], records[gid])
	}
	for request, gid := range w.acted {
		if n := w.times(gid, request); n != 1 {
			w.violation("request %s of %s was acknowledged, and is %d times in the trail", request, gid, n)
		}
	}
	w.checkOrders(records)
	w.checkEffects(records)
	w.checkMoney()
	w.checkMessages()
}

func (w *world) events(gid string) []store.Event {
	all, err := w.store.Events(context.Background(), gid, 0, 10_000)
	if err != nil {
		w.violation("%s: its events cannot be read: %v", gid, err)
	}
	return all
}

func (w *world) times(gid, request string) (n int) {
	for _, ev := range w.events(gid) {
		if detailOf(ev).Request == request {
			n++
		}
	}
	return n
}

// checkTrail verifies the chain of digests, and that each state may follow the
// one before it.
func (w *world) checkTrail(r store.Record) {
	var prev []byte
	var from txn.State
	events := w.events(r.GID)
	for i, ev := range events {
		if ev.Seq != int64(i+1) || !bytes.Equal(ev.Prev, prev) || !bytes.Equal(ev.Hash, engine.Hash(ev)) {
			w.violation("%s: its trail is broken at event %d", r.GID, i+1)
			return
		}
		to, err := txn.ParseState(detailOf(ev).State)
		if err != nil || from != 0 && !txn.Legal(from, to) {
			w.violation("%s: event %d leads from %v to %v, %v", r.GID, ev.Seq, from, to, err)
		}
		prev, from = ev.Hash, to
	}
	if !bytes.Equal(r.EventHash, prev) || r.EventSeq != int64(len(events)) || from != txn.State(r.State) {
		w.violation("%s is %v with %d events, and its trail ends at %d with %v", r.GID, txn.State(r.State), r.EventSeq, len(events), from)
	}
}

// checkFact: what was acknowledged is there, and ended as a client was told.
func (w *world) checkFact(gid string, f *fact, r store.Record) {
	switch state := txn.State(r.State); {
	case f.acked && r.GID == "":
		w.violation("%s was acknowledged and is lost", gid)
	case f.said != 0 && f.said != state:
		w.violation("%s is %v, but a client was told %v", gid, state, f.said)
	case r.GID != "" && state != txn.Committed && state != txn.RolledBack:
		w.violation("%s ended as %v", gid, state)
	}
}

// checkOrders: a saga begins if and only if the order that it belongs to was
// committed.
func (w *world) checkOrders(records map[string]store.Record) {
	ordered := map[string]bool{}
	for _, r := range w.banks[0].rows(w.t, `SELECT gid, said FROM orders`) {
		ordered[r[0]] = true
	}
	for gid, f := range w.facts {
		if _, began := records[gid]; f.kind == "tx" && began != ordered[gid] {
			w.violation("%s: ordered %v, begun %v", gid, ordered[gid], began)
		}
	}
}

// checkEffects: every operation once, and all of a transaction or nothing.
func (w *world) checkEffects(records map[string]store.Record) {
	times, order := map[string]int{}, map[string]int{}
	for _, d := range w.banks {
		for i, e := range d.rows(w.t, `SELECT what, cents FROM effects ORDER BY n`) {
			times[e[0]]++
			order[e[0]] = i
			if times[e[0]] > 1 {
				w.violation("%s took effect %d times", e[0], times[e[0]])
			}
			gid, _, _ := strings.Cut(e[0], "/")
			if _, found := records[gid]; !found {
				w.violation("%s took effect, and nobody knows the transaction", e[0])
			}
		}
	}
	for gid, r := range records {
		f := w.facts[gid]
		if f == nil {
			w.violation("nobody began %s", gid)
			continue
		}
		for _, branch := range branchesOf(f.kind) {
			w.checkBranch(gid, f.kind, branch, txn.State(r.State) == txn.Committed, times, order)
		}
	}
}

func branchesOf(kind string) []string {
	switch kind {
	case "parallel", "pivot":
		return []string{"debit", "credit", "note"}
	case "stuck":
		return []string{"debit", "credit", "stamp", "veto"}
	}
	return []string{"debit", "credit"}
}

func (w *world) checkBranch(gid, kind, branch string, committed bool, times, order map[string]int) {
	what := func(op txn.Op) string { return fmt.Sprintf("%s/%s %v", gid, branch, op) }
	first, good, bad := what(txn.Do), "", what(txn.Undo)
	if kind == "tcc" {
		first, good, bad = what(txn.Try), what(txn.Confirm), what(txn.Cancel)
	}
	n, done, undone := times[first], times[good], times[bad]
	stands := n - undone
	if kind == "tcc" {
		stands = done
	}
	byHand := branch == "stamp" && !committed // an operator undid it
	if committed && (stands != 1 || undone != 0) || !committed && !byHand && (stands != 0 || n != undone) {
		w.violation("%s committed: %v, but its %s took effect %d times, was confirmed %d times and undone %d times",
			gid, committed, branch, n, done, undone)
	}
	for _, second := range []string{good, bad} {
		if times[second] > 0 && order[second] < order[first] {
			w.violation("%s took effect before %s", second, first)
		}
	}
}

// checkMoney: it is all there.
func (w *world) checkMoney() {
	sum := 0
	for _, d := range w.banks {
		for _, r := range d.rows(w.t, `SELECT sum(cents), '' FROM accounts`) {
			var n int
			if _, err := fmt.Sscan(r[0], &n); err != nil {
				w.violation("%s: %v", d.name, err)
			}
			sum += n
		}
	}
	if want := len(services) * accounts * opening; sum != want {
		w.violation("the banks have %d cents, want %d", sum, want)
	}
}

// checkMessages: those of committed transactions and no others, in order for
// each account, in the log at least once and handled once.
func (w *world) checkMessages() {
	want, logged, handled := map[string][]string{}, map[string][]string{}, map[string][]string{}
	for _, r := range w.banks[0].rows(w.t, `SELECT account, msg FROM ledger ORDER BY n`) {
		want[r[0]] = append(want[r[0]], r[1])
	}
	seen := map[string]bool{}
	for _, entries := range w.log.entries {
		for _, m := range entries {
			if !seen[m.ID] {
				logged[m.Key] = append(logged[m.Key], m.ID)
			}
			seen[m.ID] = true
		}
	}
	for _, r := range w.inbox.rows(w.t, `SELECT account, msg FROM handled ORDER BY n`) {
		handled[r[0]] = append(handled[r[0]], r[1])
	}
	if !maps.EqualFunc(want, logged, slices.Equal) {
		w.violation("published %q, want %q", logged, want)
	}
	if !maps.EqualFunc(want, handled, slices.Equal) {
		w.violation("handled %q, want %q", handled, want)
	}
}
