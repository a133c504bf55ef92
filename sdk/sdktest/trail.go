package sdktest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/amends-dev/amends/coordinator/store"
)

// Trail returns the audit trail of a transaction, one line for each event,
// without times and digests, so that it can be compared with what is expected:
//
//	started transfer: RUNNING
//	debit do 1 ok: RUNNING
//	credit do 1 refused (account closed): ROLLING_BACK
//	…
//
// The number is that of the attempt, the word at the end the state that the
// transaction was in after the event. Parallel steps may come in any order.
// Trail fails the test when there is no such transaction.
func (w *World) Trail(gid string) string {
	w.t.Helper()
	w.mu.Lock()
	st := w.current.store
	w.mu.Unlock()
	const page = 1000
	var b strings.Builder
	for last := int64(0); ; {
		events, err := st.Events(context.Background(), gid, last, page)
		if err != nil {
			w.t.Fatalf("sdktest: trail of %q: %v", gid, err)
		}
		for _, ev := range events {
			line, err := trailLine(ev)
			if err != nil {
				w.t.Fatalf("sdktest: trail of %q: event %d: %v", gid, ev.Seq, err)
			}
			b.WriteString(line + "\n")
			last = ev.Seq
		}
		if len(events) < page {
			break
		}
	}
	if b.Len() == 0 {
		w.t.Fatalf("sdktest: no transaction %q has a trail", gid)
	}
	return b.String()
}

func trailLine(ev store.Event) (string, error) {
	var d struct {
		State, Branch, Action, Op, Outcome, Message, Code, Actor, Name string
		Attempt                                                        int
	}
	if err := json.Unmarshal(ev.Data, &d); err != nil {
		return "", err
	}
	var words []string
	add := func(s string) {
		if s != "" {
			words = append(words, s)
		}
	}
	if ev.Type != "replied" { // what it is shows from the rest
		add(ev.Type)
	}
	add(d.Name)
	add(d.Branch)
	add(d.Action)
	add(d.Op)
	if d.Attempt > 0 {
		add(fmt.Sprint(d.Attempt))
	}
	add(d.Outcome)
	add(d.Code)
	if d.Actor != "" {
		add("by " + d.Actor)
	}
	if d.Message != "" {
		add("(" + d.Message + ")")
	}
	return strings.Join(words, " ") + ": " + d.State, nil
}
