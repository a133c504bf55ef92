package model

import (
	"errors"
	"fmt"
	"strings"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// Check returns the promise that w breaks.
func (t *Transaction) Check(w World) error {
	if w.started && w.row == 0 {
		return errors.New("a start that was acknowledged is not stored")
	}
	for b := range t.n {
		if p := &w.parts[b]; p.ran > 1 || p.ended > 1 {
			return fmt.Errorf("branch %d took effect twice", b)
		}
	}
	if err := t.checkOrder(w); err != nil || w.row == 0 {
		return err
	}
	if err := t.checkSkips(w); err != nil {
		return err
	}
	r := t.m.runs[w.row]
	if w.commit && r.decided() != txn.Committing {
		return fmt.Errorf("a commit that was acknowledged is not stored: %s", r.phase())
	}
	for b := range t.n {
		if err := t.checkEnd(r.phase(), b, &w.parts[b]); err != nil && !t.skipped(w, b) {
			return err
		}
	}
	return nil
}

// checkSkips: what an operator skipped before it was called is never called.
func (t *Transaction) checkSkips(w World) error {
	for b := range t.n {
		if t.skipped(w, b) && t.m.runs[w.row].(sagaRun).s.Steps[b].Attempt == 0 && w.parts[b].ran > 0 {
			return fmt.Errorf("step %d was skipped as never called, and took effect", b)
		}
	}
	return nil
}

// skipped reports whether an operator has skipped a step.
func (t *Transaction) skipped(w World, b int) bool {
	if t.tcc || w.row == 0 {
		return false
	}
	return t.m.runs[w.row].(sagaRun).s.Steps[b].Phase == saga.Skipped
}

// checkOrder: what a step comes after stands as long as the step does.
func (t *Transaction) checkOrder(w World) error {
	if t.tcc {
		return nil
	}
	for b := range t.n {
		if t.kinds[b] == saga.Retriable || !w.parts[b].stands() {
			continue
		}
		for _, a := range t.before[b] {
			if !w.parts[a].stands() && !t.skipped(w, a) {
				return fmt.Errorf("step %d stands, and step %d, which it comes after, does not", b, a)
			}
		}
	}
	return nil
}

func (p *part) stands() bool { return p.ran > 0 && p.by != txn.Undo && p.by != txn.Cancel }

// checkEnd: a finished transaction did all of it or nothing, and nothing that
// arrives later changes that.
func (t *Transaction) checkEnd(phase txn.State, b int, p *part) error {
	switch {
	case phase == txn.Committed && !p.stands():
		return fmt.Errorf("committed, and branch %d does not stand", b)
	case phase == txn.Committed && t.tcc && p.by != txn.Confirm:
		return fmt.Errorf("committed, and branch %d is not confirmed", b)
	case phase == txn.RolledBack && p.stands() && (t.tcc || t.kinds[b] != saga.Retriable):
		return fmt.Errorf("rolled back, and branch %d stands", b)
	}
	return nil
}

// Rests reports whether the transaction has ended, or waits for a person.
func (t *Transaction) Rests(w World) bool {
	return w.row != 0 && w.started &&
		(t.m.runs[w.row].phase().Finished() || t.m.runs[w.row].phase() == txn.Parked && len(t.m.asks[w.row]) == 0)
}

// Show describes w.
func (t *Transaction) Show(w World) string {
	var b strings.Builder
	b.WriteString("store: ")
	if w.row == 0 {
		b.WriteString("nothing")
	} else {
		fmt.Fprintf(&b, "%d %s", w.version, t.m.runs[w.row].phase())
	}
	for i := range w.coords {
		c := &w.coords[i]
		if c.mem == 0 {
			continue
		}
		fmt.Fprintf(&b, "; coordinator %d: %s", i+1, t.m.runs[c.mem].phase())
		if !c.durable() {
			b.WriteString(", not stored")
		}
	}
	for i := range t.n {
		if p := &w.parts[i]; p.ran > 0 {
			fmt.Fprintf(&b, "; %d ran", i)
			if p.by != 0 {
				fmt.Fprintf(&b, ", %s", p.by)
			}
		}
	}
	return b.String()
}
