package model

import (
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// deliver is what can become of a call that arrives at its participant: the
// guard's decisions and the handler's, in one transaction of the participant's
// database.
func (t *Transaction) deliver(w World, m message, yield Yield[World]) {
	p := w.parts[m.branch]
	answer := func(p part, ok bool, what string) {
		next := w
		next.parts[m.branch] = p
		if ok {
			next.oks |= m.bit()
		} else {
			next.noes |= m.bit()
		}
		if next != w {
			yield(next, opWord[m.op]+" of %d, attempt %d: "+what, int(m.branch), int(m.attempt))
		}
	}
	if m.op == txn.Do || m.op == txn.Try {
		t.firstPhase(w, m, p, answer, yield)
		return
	}
	t.secondPhase(m, p, answer)
}

// firstPhase is a do or try.
func (t *Transaction) firstPhase(w World, m message, p part, answer func(part, bool, string), yield Yield[World]) {
	switch {
	case p.claim == tomb:
		answer(p, false, "was undone before it came")
		return
	case p.claim == done && t.scope.Fault != NoClaim:
		answer(p, true, "had run")
		return
	}
	if t.scope.Refusals && t.refuses(m) {
		answer(p, false, "is refused")
	}
	if t.scope.Fault == MarkBeforeWork {
		next := w
		next.parts[m.branch].claim = done
		yield(next, opWord[m.op]+" of %d, attempt %d: is claimed, and the participant crashes", int(m.branch), int(m.attempt))
	}
	p.claim = done
	p.ran = min(p.ran+1, 2)
	answer(p, true, "runs")
}

// refuses reports whether a handler may refuse the branch. Past the pivot none
// does: that only parks the saga.
func (t *Transaction) refuses(m message) bool {
	return t.tcc || t.kinds[m.branch] != saga.Retriable
}

// secondPhase is an undo, confirm or cancel.
func (t *Transaction) secondPhase(m message, p part, answer func(part, bool, string)) {
	switch {
	case m.op == txn.Confirm && p.claim != done:
		answer(p, false, "is refused: never tried")
	case p.claim == 0:
		if t.scope.Fault != NoTombstone {
			p.claim = tomb
		}
		answer(p, true, "had nothing to do")
	case p.claim == tomb, p.end == m.op && t.scope.Fault != NoClaim:
		answer(p, true, "was done")
	case p.end != 0 && p.end != m.op:
		answer(p, false, "comes after the other")
	case !t.tcc && t.kinds[m.branch] == saga.Pivot:
		answer(p, false, "is refused: it stands")
	default:
		p.end, p.by = m.op, m.op
		p.ended = min(p.ended+1, 2)
		answer(p, true, "runs")
	}
}
