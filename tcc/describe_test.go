package tcc_test

import (
	"fmt"
	"strings"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// describeEvent and describeState write what trails and golden files show.
func describeEvent(ev txn.Event) string {
	switch ev := ev.(type) {
	case txn.Replied:
		text := fmt.Sprintf("%s %d #%d: %s", ev.Op, ev.Branch, ev.Attempt, ev.Outcome)
		if ev.Message != "" {
			text += fmt.Sprintf(" (%s)", ev.Message)
		}
		return text
	case txn.Abort:
		return fmt.Sprintf("abort: %s", ev.Reason)
	case tcc.Try:
		return "try " + ev.Branch.Name
	}
	return fmt.Sprintf("%s %+v", ev.EventType(), ev)
}

func describeState(s tcc.State) string {
	var b strings.Builder
	b.WriteString(s.Phase.String())
	for _, br := range s.Branches {
		fmt.Fprintf(&b, " %s=%s", br.Name, br.Phase)
		if br.Attempt > 1 {
			fmt.Fprintf(&b, "#%d", br.Attempt)
		}
	}
	if s.Checking != nil {
		fmt.Fprintf(&b, " checking#%d", s.Checking.Attempt)
	}
	if s.Cause != nil {
		fmt.Fprintf(&b, " because %s", s.Cause)
	}
	return b.String()
}
