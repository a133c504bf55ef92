package model

import (
	"fmt"
	"strings"
)

// Check returns the promise that f breaks.
func (r Relay) Check(f Flow) error {
	logged, first := f.logged()
	for m := range rows {
		switch {
		case f.effects[m] > 1:
			return fmt.Errorf("message %d took effect twice", m+1)
		case logged.has(m) && f.tx[m] != txCommitted:
			return fmt.Errorf("message %d is in the log, and was not committed", m+1)
		case f.deleted.has(m) && !logged.has(m) && !r.underway(&f, m):
			return fmt.Errorf("message %d is neither in the outbox nor in the log", m+1)
		}
	}
	if f.tx[0] == txCommitted && f.tx[1] == txCommitted && first >= 0 && first != f.firstCommitted() {
		return fmt.Errorf("message %d is first in the log, and was committed second", first+1)
	}
	return nil
}

// underway reports whether message m may still reach the log, without its row.
func (r Relay) underway(f *Flow, m int) bool {
	for i := range f.relays {
		if p := &f.relays[i]; p.fate == sending && int(p.sent) == m+1 {
			return true
		}
	}
	return int(f.late) == m+1
}

// logged returns what is in the log, and which message of the key that has two
// comes first there, -1 when none does.
func (f *Flow) logged() (in set, first int) {
	first = -1
	for _, m := range f.log[:f.length] {
		in = in.with(int(m) - 1)
		if first < 0 && keyOf[m-1] == 0 {
			first = int(m) - 1
		}
	}
	return in, first
}

func (f *Flow) firstCommitted() int {
	if f.second {
		return 1
	}
	return 0
}

// Rests reports whether every message that was committed has been handled.
func (r Relay) Rests(f Flow) bool {
	for m := range r.scope.Messages {
		if f.tx[m] < txCommitted || f.tx[m] == txCommitted && (f.effects[m] != 1 || !f.deleted.has(m)) {
			return false
		}
	}
	return true
}

// Show describes f.
func (r Relay) Show(f Flow) string {
	var b strings.Builder
	b.WriteString("outbox:")
	for m := range rows {
		if f.tx[m] == txCommitted && !f.deleted.has(m) {
			fmt.Fprintf(&b, " %d", m+1)
		}
	}
	b.WriteString("; log:")
	for _, m := range f.log[:f.length] {
		fmt.Fprintf(&b, " %d", m)
	}
	b.WriteString("; handled:")
	for m := range rows {
		if f.effects[m] > 0 {
			fmt.Fprintf(&b, " %d", m+1)
		}
	}
	return b.String()
}
