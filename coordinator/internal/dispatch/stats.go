package dispatch

import (
	"time"

	"github.com/amends-dev/amends/coordinator/internal/meter"
	"github.com/amends-dev/amends/saga/txn"
)

// Ended is an operation and how it ended.
type Ended struct {
	Op      txn.Op
	Outcome txn.Outcome
}

// meters counts calls.
type meters struct {
	calls, retries *meter.Tally[txn.Op]
	outcomes       *meter.Tally[Ended]
	answers        map[txn.Op]*meter.Histogram // seconds; read only
}

func newMeters() *meters {
	var ops []txn.Op
	var ended []Ended
	answers := map[txn.Op]*meter.Histogram{}
	for op := txn.Do; op.Valid(); op++ {
		ops = append(ops, op)
		answers[op] = meter.NewHistogram(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)
		for o := txn.OK; o.Valid(); o++ {
			ended = append(ended, Ended{op, o})
		}
	}
	return &meters{calls: meter.NewTally(ops...), retries: meter.NewTally(ops...), outcomes: meter.NewTally(ended...), answers: answers}
}

// sent counts a call that was handed over.
func (m *meters) sent(c Call) {
	m.calls.Add(c.Op)
	if c.Attempt > 1 {
		m.retries.Add(c.Op)
	}
}

// counting counts outcomes on their way to deliver.
func (m *meters) counting(deliver func(Outcome)) func(Outcome) {
	return func(o Outcome) {
		m.outcomes.Add(Ended{o.Op, o.Outcome})
		deliver(o)
	}
}

// answered counts the time from when a call was given to an instance to its
// answer.
func (m *meters) answered(f *flight, now time.Time) {
	if h := m.answers[f.call.Op]; h != nil {
		h.Observe(now.Sub(f.expires.Add(-callTimeout(f.call))).Seconds())
	}
}

// Stats is what a Hub did since it was made, and where it stands.
type Stats struct {
	Calls    map[txn.Op]uint64 // handed over; one that is given to another instance counts once
	Retries  map[txn.Op]uint64 // those of them that were not the first attempt
	Outcomes map[Ended]uint64  // repeated ones included
	Answers  map[txn.Op]meter.Snapshot
	Services []Service // of all namespaces, in no order; a name once for each
}

// Stats returns the counts so far.
func (h *Hub) Stats() Stats {
	m := h.meters
	s := Stats{Calls: m.calls.All(), Retries: m.retries.All(), Outcomes: m.outcomes.All(), Answers: map[txn.Op]meter.Snapshot{}}
	for op, answers := range m.answers {
		s.Answers[op] = answers.Snapshot()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, sv := range h.services {
		s.Services = append(s.Services, sv.status())
	}
	return s
}
