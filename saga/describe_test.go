package saga_test

import (
	"fmt"
	"strings"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
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
	}
	return fmt.Sprintf("%s %+v", ev.EventType(), ev)
}

func describeState(d *saga.Definition, s saga.State) string {
	var b strings.Builder
	b.WriteString(s.Phase.String())
	for i, st := range s.Steps {
		fmt.Fprintf(&b, " %s=%s", d.Steps[i].Name, st.Phase)
		if st.Attempt > 1 {
			fmt.Fprintf(&b, "#%d", st.Attempt)
		}
	}
	if s.Cause != nil {
		fmt.Fprintf(&b, " because %s", s.Cause)
	}
	return b.String()
}
