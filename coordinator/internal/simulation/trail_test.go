package simulation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// trail is what happened in a run, for people, and to compare runs by.
type trail struct {
	mu     sync.Mutex
	began  time.Time
	lines  []line
	faults map[string]int // by kind
	over   bool           // what follows is how the processes end, all at once
}

type line struct {
	at   time.Duration
	text string
}

func newTrail() *trail { return &trail{began: time.Now(), faults: map[string]int{}} }

// say notes what somebody did.
func (t *trail) say(who, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.add(who, fmt.Sprintf(format, args...))
	}
}

// add notes it in any case. The caller holds mu.
func (t *trail) add(who, text string) {
	t.lines = append(t.lines, line{at: time.Since(t.began), text: fmt.Sprintf("%-10s %s", who, text)})
}

// finish ends the trail, but for violations.
func (t *trail) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

// fault notes what went wrong, and counts it.
func (t *trail) fault(kind, who, format string, args ...any) {
	t.mu.Lock()
	if !t.over {
		t.faults[kind]++
	}
	t.mu.Unlock()
	t.say(who, "! "+kind+": "+format, args...)
}

// String is the trail by time. What happened in the same nanosecond stands in
// the order of the text: there is no other.
func (t *trail) String() string {
	t.mu.Lock()
	lines := slices.Clone(t.lines)
	t.mu.Unlock()
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.text, b.text)) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%13.6f %s\n", l.at.Seconds(), l.text)
	}
	return b.String()
}
