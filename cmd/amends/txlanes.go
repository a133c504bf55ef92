package main

import (
	"cmp"
	"fmt"
	"strings"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// lanesOf are the operations of a branch, in the order of their columns.
func lanesOf(k amendsv1.Kind) []string {
	if k == amendsv1.Kind_KIND_TCC {
		return []string{"try", "confirm", "cancel"}
	}
	return []string{"do", "undo"}
}

// phaseOps are the operation that a phase is about, and what it says of it. The
// phases that are not here are about the last operation that was called.
var phaseOps = map[string]struct{ op, word string }{
	"DOING": {"do", "DOING"}, "DONE": {"do", "DONE"}, "REFUSED": {"do", "REFUSED"},
	"UNDOING": {"undo", "UNDOING"}, "UNDONE": {"undo", "UNDONE"}, "UNDO_SKIPPED": {"undo", "SKIPPED"},
	"TRYING": {"try", "TRYING"}, "TRIED": {"try", "TRIED"},
	"CONFIRMING": {"confirm", "CONFIRMING"}, "CONFIRMED": {"confirm", "CONFIRMED"},
	"CANCELLING": {"cancel", "CANCELLING"}, "CANCELLED": {"cancel", "CANCELLED"},
}

// call is what the audit trail says about one operation of a branch.
type call struct {
	outcome string // of the last answer: ok, refused, unknown
	attempt int
}

// history is what the audit trail says about one branch.
type history struct {
	calls map[string]call // by operation
	last  string          // the operation that was answered last
}

// historyOf reads the answers to calls out of a trail, by branch.
func historyOf(events []*amendsv1.Event) map[string]history {
	found := map[string]history{}
	for _, e := range events {
		d := e.GetDetail().GetFields()
		name, op, outcome := d["branch"].GetStringValue(), d["op"].GetStringValue(), d["outcome"].GetStringValue()
		if name == "" || op == "" || outcome == "" {
			continue
		}
		h := found[name]
		if h.calls == nil {
			h.calls = map[string]call{}
		}
		h.calls[op], h.last = call{outcome, int(d["attempt"].GetNumberValue())}, op
		found[name] = h
	}
	return found
}

// lane is how far one operation of a branch has come: what its phase says, or
// the last answer when the branch has moved on to another operation.
func lane(op string, b *amendsv1.Branch, h history) cell {
	at, known := phaseOps[b.GetPhase()]
	if !known { // PENDING, SKIPPED, STUCK
		at.word = b.GetPhase()
		at.op = cmp.Or(h.last, map[bool]string{true: "do", false: "try"}[op == "do" || op == "undo"])
	}
	if at.op == op {
		return phase(at.word, int(b.GetAttempt()))
	}
	switch c := h.calls[op]; c.outcome {
	case "ok":
		return phase(map[string]string{"do": "DONE", "undo": "UNDONE", "try": "TRIED"}[op], c.attempt)
	case "refused", "unknown":
		return phase(strings.ToUpper(c.outcome), c.attempt)
	}
	return text("-")
}

// phase is where an operation stands, in the colour of how it does.
func phase(p string, attempt int) cell {
	c := text(p)
	switch p {
	case "DONE", "TRIED", "CONFIRMED":
		c.paint = green
	case "REFUSED", "UNDOING", "UNDONE", "CANCELLING", "CANCELLED", "SKIPPED", "UNKNOWN":
		c.paint = yellow
	case "STUCK":
		c.paint = red
	}
	if attempt > 1 {
		c.text += fmt.Sprintf(" (%d)", attempt)
	}
	return c
}
