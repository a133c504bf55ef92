package engine

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/ahead"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// own is what the engine keeps of a transaction beside its machine's state.
type own struct {
	Since    int64    `json:"since,omitempty"` // when it last got on, in microseconds; 0: with this version
	Due      int64    `json:"due,omitempty"`   // when its calls go out; 0: when it is due
	Requests requests `json:"requests,omitempty"`
	Trace    string   `json:"trace,omitempty"`    // a W3C traceparent
	Ahead    bool     `json:"ahead,omitempty"`    // calls may be ahead of this state
	Presumed []int    `json:"presumed,omitempty"` // and then of these steps only; none: of any that ahead allows
}

// own returns what is to be kept with the version that is being written, which
// is that of a step forward or of one more try.
func (t *tx) own(now, next time.Time) ([]byte, error) {
	var o own
	if t.gotOn {
		t.since, t.gotOn = now, false
	} else {
		o.Since = t.since.UnixMicro()
	}
	if due := stampOrZero(t.dueAt); due.After(now) && !due.Equal(next) {
		o.Due = due.UnixMicro()
	}
	o.Requests, o.Trace, o.Ahead = t.requests, t.trace, t.mLeads()
	if m, ok := t.m.(*sagaMachine); ok && !o.Ahead && !m.phase().Finished() {
		o.Presumed = m.s.Presumed()
		o.Ahead = o.Presumed != nil // for builds that know no more
	}
	if o.Since == 0 && o.Due == 0 && o.Requests == nil && o.Trace == "" {
		switch {
		case o.Ahead && o.Presumed == nil:
			return onlyAhead, nil
		case !o.Ahead:
			return nil, nil
		}
	}
	return json.Marshal(o)
}

// onlyAhead is what is mostly kept, encoded.
var onlyAhead = []byte(`{"ahead":true}`)

// mLeads reports whether calls may go out ahead of what is in memory, once that
// is stored. Of what is paused or stalled an operator is to know exactly what was
// called.
func (t *tx) mLeads() bool {
	m, ok := t.m.(*sagaMachine)
	return ok && !t.rec.Paused && !t.rec.Stalled && ahead.Leads(m.d, m.s)
}

// restore is the inverse of own for a record just read.
func (t *tx) restore(data []byte) error {
	t.since, t.dueAt, t.known = t.rec.UpdatedAt, t.rec.NextAt, t.m.branches()
	if len(data) == 0 {
		return nil
	}
	var o own
	if err := json.Unmarshal(data, &o); err != nil {
		return fmt.Errorf("engine: transaction %q: %w", t.rec.GID, err)
	}
	t.requests, t.trace, t.leads = o.Requests, o.Trace, o.Ahead && o.Presumed == nil
	if err := t.presume(&o); err != nil {
		return err
	}
	if o.Since != 0 {
		t.since = time.UnixMicro(o.Since).UTC()
	}
	if o.Due != 0 {
		t.dueAt = time.UnixMicro(o.Due).UTC()
	}
	return nil
}

// presume marks the steps of a saga just read that may have been called ahead of
// what was stored.
func (t *tx) presume(o *own) error {
	m, ok := t.m.(*sagaMachine)
	if !ok || !o.Ahead {
		return nil
	}
	steps := o.Presumed
	if steps == nil {
		steps = ahead.Presumed(m.d, m.s)
	}
	s, err := m.s.Presume(m.d, steps)
	if err != nil {
		return fmt.Errorf("engine: transaction %q: %w", t.rec.GID, err)
	}
	t.m = &sagaMachine{d: m.d, s: s}
	return nil
}

// shown makes the machine of a stored transaction for a reader. Where its owner
// may be ahead of it, it is the owner who knows what was called.
func shown(rec *store.Record) (machine, error) {
	m, data, err := decode(rec)
	if err != nil || len(data) == 0 {
		return m, err
	}
	t := &tx{rec: *rec, m: m}
	if err := t.restore(data); err != nil || !t.leads {
		return t.m, err
	}
	return m, nil
}

// stallsAt is when the transaction has waited for a participant for too long,
// or zero.
func (t *tx) stallsAt() time.Time {
	if t.patience < 0 || t.rec.Stalled && !t.gotOn || t.rec.Paused || len(t.calls) == 0 {
		return time.Time{}
	}
	return t.since.Add(t.patience)
}

// stall notes that a transaction has waited for too long: it is found by that,
// until it gets on.
func (w *worker) stall(t *tx, now time.Time) {
	at := t.stallsAt()
	if at.IsZero() || at.After(now) || t.gotOn {
		return
	}
	d := detail{State: t.m.phase().String(), Branch: t.m.branch(t.slowest().Branch),
		Message: fmt.Sprintf("waits for service %q since %s", t.waitsFor(), t.since.Format(time.RFC3339))}
	if err := t.note("stalled", d, stamp(now)); err != nil {
		w.log.Error("amends: a stall could not be noted", "gid", t.rec.GID, "err", err)
		return
	}
	w.log.Warn("amends: a transaction waits for too long", "gid", t.rec.GID, "service", t.waitsFor(), "since", t.since)
	t.rec.Stalled = true
	w.touch(t)
}

// slowest is the call that has been tried most often.
func (t *tx) slowest() *call {
	most := &t.calls[0]
	for i := range t.calls {
		if t.calls[i].Attempt > most.Attempt {
			most = &t.calls[i]
		}
	}
	return most
}

// waitsFor is the service that a transaction waits for that is stalled, or
// parked for what it refused; empty for others.
func (t *tx) waitsFor() string {
	action := ""
	switch {
	case t.m.phase() == txn.Parked:
		action = t.m.stuck()
	case len(t.calls) > 0:
		action = t.slowest().Action
	}
	service, _ := txn.SplitAction(action)
	return service
}
