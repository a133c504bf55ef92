package model

import (
	"fmt"
	"math/bits"
)

// FlowScope bounds what is explored of a Relay. Budgets count over the whole run.
type FlowScope struct {
	Fault     Fault
	Messages  int // 2, of one key, or 3, of which the last has another
	Crashes   int // a relay or the consumer loses its memory; what a relay has sent goes on
	Expiries  int // a lease runs out under a relay that does not notice
	Lost      int // answers of the log that do not arrive
	Failures  int // messages that the log does not take
	Rollbacks int // transactions of writers that end in a rollback
}

// Relay is the model of one partition of an outbox: writers of two or three
// messages, of which the first two have the same key, two relays, one partition of a log,
// the notes that relays keep of what is in the log already, and a consumer with
// an inbox. The transaction of a writer begins, writes its row, which gives it
// its id, and commits or rolls back. A relay reads, sends, hears, notes and
// deletes one row at a time, but sends others before it deletes.
//
// Not in it: rows aside, dead letters, delay, idempotency keys of messages, the
// floor of a relay (it always reads from the beginning), and a log that drops
// what is sent twice: duplicates reach the consumer.
type Relay struct{ scope FlowScope }

// NewRelay returns the model.
func NewRelay(scope FlowScope) (Relay, error) {
	if scope.Messages < 2 || scope.Messages > rows {
		return Relay{}, fmt.Errorf("model: FlowScope.Messages is %d, want 2 or %d", scope.Messages, rows)
	}
	return Relay{scope}, nil
}

const (
	rows    = 3
	logSize = 10
)

// keyOf says which message has which key.
var keyOf = [rows]int{0, 0, 1}

// set is a set of rows.
type set uint8

func (s set) has(m int) bool { return s&(1<<m) != 0 }
func (s set) with(m int) set { return s | 1<<m }

type txState uint8

const (
	txOpen txState = iota + 1
	txCommitted
	txRolledBack
)

// Flow is a state of a Relay.
type Flow struct {
	tx      [rows]txState
	ids     [rows]int8 // of the row, in the order of writing; 0: not written
	nextID  int8
	second  bool // the second message of the key was committed before the first
	deleted set

	lease  leaseRow
	relays [2]relay
	late   int8 // a message on its way to the log that nobody waits for, from 1
	noted  set  // what a relay has noted to be in the log

	log      [logSize]int8 // messages, from 1
	length   int8
	consumer consumer
	claims   set
	effects  [rows]int8
	left     flowBudget
}

type flowBudget struct{ crashes, expiries, lost, failures, rollbacks int8 }

// relay is what a relay knows.
type relay struct {
	epoch int8
	sent  int8 // the message it waits for, from 1; 0: none
	fate  sendFate
	acked set
	past  set  // Overtake: what failed and is left for later
	floor int8 // Watermark
}

type sendFate uint8

const (
	sending sendFate = iota + 1
	appended
	failed
)

// consumer is where the consumer is in the log.
type consumer struct {
	at     int8 // reads next
	offset int8 // begins again from after a crash
}

// Init returns a flow in which nothing was written.
func (r Relay) Init() Flow {
	s := r.scope
	return Flow{left: flowBudget{int8(s.Crashes), int8(s.Expiries), int8(s.Lost), int8(s.Failures), int8(s.Rollbacks)}}
}

// Next is all that can happen in f.
func (r Relay) Next(f Flow, yield Yield[Flow]) error {
	r.writers(f, yield)
	if f.lease.owner != 0 && !f.lease.expired && f.left.expiries > 0 {
		next := f
		next.left.expiries--
		next.lease.expired = true
		yield(next, "the lease of relay %d runs out", int(f.lease.owner))
	}
	if f.late != 0 {
		next := f
		next.late = 0
		if next.append(f.late) {
			yield(next, "message %d, sent long ago, reaches the log", int(f.late))
		}
	}
	for i := range f.relays {
		r.leases(f, i, yield)
		r.sends(f, i, yield)
		r.hears(f, i, yield)
	}
	r.consumes(f, yield)
	return nil
}

// writers is what the application does.
func (r Relay) writers(f Flow, yield Yield[Flow]) {
	for m := range r.scope.Messages {
		switch f.tx[m] {
		case 0:
			if r.waits(&f, m) {
				continue
			}
			next := f
			next.nextID++
			next.tx[m], next.ids[m] = txOpen, next.nextID
			yield(next, "a writer begins, and writes message %d as row %d", m+1, int(next.nextID))
		case txOpen:
			next := f
			next.tx[m] = txCommitted
			next.second = f.second || m == 1 && f.tx[0] != txCommitted
			yield(next, "the writer of message %d commits", m+1)
			if f.left.rollbacks > 0 {
				next := f
				next.left.rollbacks--
				next.tx[m] = txRolledBack
				yield(next, "the writer of message %d rolls back", m+1)
			}
		}
	}
}

// waits reports whether the writer of m waits for the lock on its key's row.
func (r Relay) waits(f *Flow, m int) bool {
	for other := range rows {
		if other != m && keyOf[other] == keyOf[m] && f.tx[other] == txOpen && r.scope.Fault != NoRowLock {
			return true
		}
	}
	return false
}

// append adds to the log. A log that is full takes no more: that is the bound
// of the model, beyond what the budgets allow.
func (f *Flow) append(m int8) bool {
	if f.length == logSize {
		return false
	}
	f.log[f.length] = m
	f.length++
	return true
}

// leases is what a relay does about its partition.
func (r Relay) leases(f Flow, i int, yield Yield[Flow]) {
	me, p := int8(i+1), &f.relays[i]
	free := f.lease.owner == 0 || f.lease.expired
	if free && (i == 0 || f.lease.epoch > 0) && (f.lease.owner != me || p.epoch != f.lease.epoch) && p.sent == 0 {
		next := f
		next.lease = leaseRow{owner: me, epoch: f.lease.epoch + 1}
		next.relays[i] = relay{epoch: next.lease.epoch, acked: f.noted, floor: f.highest()}
		yield(next, "relay %d takes the partition, epoch %d", i+1, int(next.lease.epoch))
	}
	if f.lease.owner == me && f.lease.expired && p.epoch == f.lease.epoch {
		next := f
		next.lease.expired = false
		yield(next, "relay %d renews its lease", i+1)
	}
	if f.left.crashes > 0 && p.epoch != 0 {
		next := f
		next.left.crashes--
		if p.fate == sending && f.late == 0 {
			next.late = p.sent
		}
		next.relays[i] = relay{}
		if f.lease.owner == me {
			next.lease.expired = true
		}
		yield(next, "relay %d crashes, its lease runs out", i+1)
	}
}

// highest is where a watermark would be: the highest id among what is deleted.
func (f *Flow) highest() int8 {
	var high int8
	for m := range rows {
		if f.deleted.has(m) {
			high = max(high, f.ids[m])
		}
	}
	return high
}

// sends is what a relay does with a row that it has read.
func (r Relay) sends(f Flow, i int, yield Yield[Flow]) {
	p := &f.relays[i]
	held := p.epoch != 0 && p.epoch == f.lease.epoch && !f.lease.expired
	if m := r.next(&f, p); m >= 0 && held && p.sent == 0 {
		next := f
		n := &next.relays[i]
		n.sent, n.fate = int8(m+1), sending
		if r.scope.Fault == MarkBeforePublish {
			next.noted = next.noted.with(m)
		}
		if r.scope.Fault == DeleteBeforeAck {
			next.deleted = next.deleted.with(m)
		}
		yield(next, "relay %d sends message %d", i+1, m+1)
	}
	if p.fate == sending {
		next := f
		next.relays[i].fate = appended
		if next.append(p.sent) {
			yield(next, "message %d of relay %d reaches the log", int(p.sent), i+1)
		}
		if f.left.failures > 0 {
			next := f
			next.left.failures--
			next.relays[i].fate = failed
			yield(next, "the log does not take message %d of relay %d", int(p.sent), i+1)
		}
	}
}

// next returns the row that a relay sends next: of those that it can see, and
// that it does not know to be in the log, the first. -1: none.
func (r Relay) next(f *Flow, p *relay) int {
	best := -1
	for m := range rows {
		visible := f.tx[m] == txCommitted && !f.deleted.has(m)
		if !visible || p.acked.has(m) || p.past.has(m) || r.scope.Fault == Watermark && f.ids[m] <= p.floor {
			continue
		}
		if best < 0 || f.ids[m] < f.ids[best] {
			best = m
		}
	}
	return best
}

// hears is what a relay does about an answer of the log.
func (r Relay) hears(f Flow, i int, yield Yield[Flow]) {
	p := &f.relays[i]
	m := int(p.sent) - 1
	switch p.fate {
	case appended:
		next := f
		n := &next.relays[i]
		n.sent, n.fate, n.acked, n.floor = 0, 0, p.acked.with(m), max(p.floor, f.ids[m])
		n.past = 0
		yield(next, "relay %d hears that message %d is in the log", i+1, m+1)
	case failed:
		next := f
		n := &next.relays[i]
		n.sent, n.fate = 0, 0
		if r.scope.Fault == Overtake {
			n.past = n.past.with(m)
		}
		yield(next, "relay %d hears that message %d is not in the log", i+1, m+1)
	}
	if p.fate != 0 && f.left.lost > 0 {
		next := f
		next.left.lost--
		if p.fate == sending && f.late == 0 {
			next.late = p.sent
		}
		next.relays[i].sent, next.relays[i].fate = 0, 0
		yield(next, "relay %d hears nothing of message %d in time", i+1, m+1)
	}
	r.settles(f, i, yield)
}

// settles notes and deletes what is in the log. The delete is fenced.
func (r Relay) settles(f Flow, i int, yield Yield[Flow]) {
	p := &f.relays[i]
	if rest := p.acked &^ f.noted; rest != 0 {
		next := f
		next.noted |= p.acked
		yield(next, "relay %d notes what is in the log", i+1)
	}
	if rest := p.acked &^ f.deleted; rest != 0 {
		next := f
		if p.epoch == f.lease.epoch {
			next.deleted |= p.acked
			yield(next, "relay %d deletes %d rows", i+1, bits.OnesCount8(uint8(rest)))
		} else {
			next.relays[i] = relay{}
			yield(next, "relay %d finds its lease gone", i+1)
		}
	}
}

// consumes is what the consumer does with the message at its place.
func (r Relay) consumes(f Flow, yield Yield[Flow]) {
	c := &f.consumer
	if c.at < f.length {
		r.handles(f, yield)
	}
	if c.offset < c.at {
		next := f
		next.consumer.offset = c.at
		yield(next, "the consumer commits offset %d", int(c.at))
	}
	if c.offset < c.at && f.left.crashes > 0 {
		next := f
		next.left.crashes--
		next.consumer.at = c.offset
		yield(next, "the consumer crashes, and begins again from offset %d", int(c.offset))
	}
}

// handles is the work on a message, with its claim.
func (r Relay) handles(f Flow, yield Yield[Flow]) {
	c := &f.consumer
	next := f
	next.consumer.at++
	if r.scope.Fault == OffsetBeforeWork {
		next.consumer.offset = next.consumer.at
		lost := next
		if f.left.crashes > 0 {
			lost.left.crashes--
			yield(lost, "the consumer commits offset %d, and crashes before the work", int(c.at)+1)
		}
	}
	m := int(f.log[c.at]) - 1
	if !f.claims.has(m) || r.scope.Fault == NoInbox {
		if r.scope.Fault == ConsumerMarksFirst && f.left.crashes > 0 {
			marked := f
			marked.claims = f.claims.with(m)
			marked.left.crashes--
			marked.consumer.at = c.offset
			yield(marked, "the consumer claims message %d, and crashes before the work", m+1)
		}
		next.claims = next.claims.with(m)
		next.effects[m] = min(next.effects[m]+1, 2)
	}
	yield(next, "the consumer handles message %d", m+1)
}
