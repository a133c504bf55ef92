package model

import (
	"errors"

	"github.com/amends-dev/amends/saga/txn"
)

// Next is all that can happen in w.
func (t *Transaction) Next(w World, yield Yield[World]) error {
	if w.lease.owner != 0 && !w.lease.expired && w.left.expiries > 0 {
		next := w
		next.left.expiries--
		next.lease.expired = true
		yield(next, "the lease of coordinator %d runs out", int(w.lease.owner))
	}
	if w.late.fate == underway {
		next := w
		next.write(next.late, t.scope.Fault)
		next.late = request{}
		yield(next, "a delayed write of version %d (epoch %d) reaches the store", int(w.late.version), int(w.late.epoch))
	}
	for i := range w.coords {
		t.leases(w, i, yield)
		if err := errors.Join(t.stores(w, i, yield), t.knows(w, i, yield)); err != nil {
			return err
		}
	}
	w.calls.each(func(m message) { t.deliver(w, m, yield) })
	return nil
}

// leases is what a coordinator does about the shard.
func (t *Transaction) leases(w World, i int, yield Yield[World]) {
	me, c := int8(i+1), &w.coords[i]
	free := w.lease.owner == 0 || w.lease.expired
	// The two are alike, so the first owner is always the first.
	if free && (i == 0 || w.lease.epoch > 0) && (w.lease.owner != me || c.epoch != w.lease.epoch) {
		next := w
		next.lease = leaseRow{owner: me, epoch: w.lease.epoch + 1}
		if t.scope.Fault != ReadBeforeLease {
			next.forget(i)
		}
		next.coords[i].epoch = next.lease.epoch
		yield(next, "coordinator %d takes the shard, epoch %d", i+1, int(next.lease.epoch))
	}
	if w.lease.owner == me && w.lease.expired && c.epoch == w.lease.epoch {
		next := w
		next.lease.expired = false
		yield(next, "coordinator %d renews its lease", i+1)
	}
	t.handsOver(w, i, yield)
	if c.epoch != 0 && c.epoch != w.lease.epoch {
		next := w
		next.forget(i)
		yield(next, "coordinator %d finds its lease gone", i+1)
	}
	if w.left.crashes > 0 && (c.epoch != 0 || c.mem != 0) {
		next := w
		next.left.crashes--
		next.forget(i)
		if w.lease.owner == me {
			next.lease.expired = true
		}
		yield(next, "coordinator %d crashes, its lease runs out", i+1)
	}
}

// forget drops what a coordinator knows. Its write goes on, if it is the only one
// that nobody waits for.
func (w *World) forget(i int) {
	if c := &w.coords[i]; c.asked.fate == underway && w.late.fate == 0 {
		w.late = c.asked
	}
	w.coords[i] = coord{}
}

// handsOver is a transfer of the shard from one coordinator to the other, who
// finds it among its own when it renews its leases.
func (t *Transaction) handsOver(w World, i int, yield Yield[World]) {
	me, c := int8(i+1), &w.coords[i]
	if w.lease.owner != me || w.lease.expired {
		return
	}
	if c.epoch == w.lease.epoch && w.left.handovers > 0 {
		next := w
		next.left.handovers--
		next.lease = leaseRow{owner: 3 - me, epoch: w.lease.epoch + 1}
		if t.scope.Fault == HandoverSameEpoch {
			next.lease.epoch--
		}
		yield(next, "coordinator %d gives the shard to the other, epoch %d", i+1, int(next.lease.epoch))
	}
	if c.epoch != w.lease.epoch {
		next := w
		next.forget(i)
		next.coords[i].epoch = w.lease.epoch
		yield(next, "coordinator %d finds that it was given the shard, epoch %d", i+1, int(w.lease.epoch))
	}
}

// stores is what goes on between a coordinator and the store.
func (t *Transaction) stores(w World, i int, yield Yield[World]) error {
	c := &w.coords[i]
	if c.mem == 0 && w.row != 0 && (c.epoch != 0 || t.scope.Fault == ReadBeforeLease) {
		next := w
		mem, err := t.m.load(w.row)
		if err != nil {
			return err
		}
		next.coords[i].mem, next.coords[i].base, next.coords[i].version = mem, w.row, w.version
		yield(next, "coordinator %d loads version %d", i+1, int(w.version))
	}
	if c.epoch != 0 && c.dirty && c.asked.fate == 0 {
		next := w
		n := &next.coords[i]
		n.asked, n.dirty = request{state: c.mem, version: c.version + 1, epoch: c.epoch, fate: underway}, false
		n.soft = false
		yield(next, "coordinator %d asks to write version %d", i+1, int(n.asked.version))
	}
	if c.asked.fate == underway {
		next := w
		next.coords[i].asked.fate = next.write(c.asked, t.scope.Fault)
		yield(next, "the write of version %d by coordinator %d (epoch %d) reaches the store",
			int(c.asked.version), i+1, int(c.asked.epoch))
	}
	t.answers(w, i, yield)
	return nil
}

// answers is what becomes of the answer to a coordinator's write.
func (t *Transaction) answers(w World, i int, yield Yield[World]) {
	c := &w.coords[i]
	switch c.asked.fate {
	case written:
		next := w
		n := &next.coords[i]
		n.version, n.base, n.asked = c.asked.version, c.asked.state, request{}
		next.started = true
		next.commit = w.commit || t.m.runs[c.asked.state].decided() == txn.Committing
		yield(next, "coordinator %d hears that version %d is stored", i+1, int(n.version))
	case conflict:
		next := w
		next.coords[i] = coord{}
		yield(next, "coordinator %d hears that the shard is another's", i+1)
	case underway:
		if w.left.lost > 0 && w.late.fate == 0 {
			next := w
			next.left.lost--
			next.late = c.asked
			yield(next, "coordinator %d hears nothing and repeats its write, which is still under way", i+1)
		}
	}
	if w.left.lost > 0 && c.asked.fate > underway {
		next := w
		next.left.lost--
		next.coords[i].asked.fate = underway
		yield(next, "the store's answer is lost, coordinator %d repeats its write", i+1)
	}
}

// write is the store's side of a commit.
func (w *World) write(r request, fault Fault) fate {
	if r.epoch != w.lease.epoch && fault != NoEpochCheck {
		return conflict
	}
	if r.version > w.version || fault == OverwriteLater {
		w.row, w.version = r.state, r.version
	}
	return written
}

// knows is what a coordinator makes of what it has in memory, and what it hears.
func (t *Transaction) knows(w World, i int, yield Yield[World]) error {
	c := &w.coords[i]
	if c.epoch == 0 {
		return nil
	}
	if c.mem == 0 {
		if w.row == 0 && !w.started {
			next := w
			next.coords[i].mem, next.coords[i].dirty = t.first, true
			next.started = t.scope.Fault == AckBeforeDurable
			yield(next, "the client asks coordinator %d to start", i+1)
		}
		return nil
	}
	if !w.started && c.durable() && c.version > 0 {
		next := w
		next.started = true
		yield(next, "the client asks coordinator %d to start again, and hears that it did", i+1)
	}
	t.sends(w, i, yield)
	if t.tcc {
		if err := t.client(w, i, yield); err != nil {
			return err
		}
	}
	return t.hears(w, i, yield)
}

// sends lets out the calls that are due, if the coordinator's own clock says
// that its lease holds. All go at once: whatever does not arrive is as though
// it had not been sent.
func (t *Transaction) sends(w World, i int, yield Yield[World]) {
	c := &w.coords[i]
	held := c.epoch == w.lease.epoch && !w.lease.expired
	if !held || !c.durable() && t.scope.Fault != ActBeforeDurable && !t.leads(c) {
		return
	}
	next := w
	for _, m := range t.m.asks[c.mem] {
		next.calls |= m.bit()
	}
	if next.calls != w.calls {
		yield(next, "coordinator %d sends what version %d waits for", i+1, int(c.version))
	}
}

// leads reports whether calls may go out ahead of what a coordinator has stored.
func (t *Transaction) leads(c *coord) bool {
	return c.dirty && c.soft && c.asked.fate == 0 && t.m.early(c.base, c.mem)
}

// hears is what a coordinator is told by participants, or by whoever asks it to
// turn back.
func (t *Transaction) hears(w World, i int, yield Yield[World]) error {
	mem := w.coords[i].mem
	var failed error
	become := func(kind eventKind, m message, spend func(*budget), what string, args ...int) {
		to, err := t.m.advance(mem, kind, m)
		if err != nil {
			failed = err
		}
		if to == mem || err != nil {
			return
		}
		next := w
		n := &next.coords[i]
		n.soft = t.scope.Recorded && kind == evOK && (!n.dirty || n.soft) && t.m.soft(mem, to, m)
		n.mem, n.dirty = to, true
		if spend != nil {
			spend(&next.left)
		}
		yield(next, what, args...)
	}
	w.oks.each(func(m message) {
		become(evOK, m, nil, opWord[m.op]+" of %d, attempt %d: OK reaches coordinator %d", int(m.branch), int(m.attempt), i+1)
	})
	w.noes.each(func(m message) {
		become(evRefused, m, nil, opWord[m.op]+" of %d, attempt %d: a refusal reaches coordinator %d",
			int(m.branch), int(m.attempt), i+1)
	})
	if w.left.timeouts > 0 {
		for _, m := range t.m.asks[mem] {
			if w.calls.has(m) {
				become(evUnknown, m, func(b *budget) { b.timeouts-- },
					opWord[m.op]+" of %d, attempt %d: coordinator %d waits no longer", int(m.branch), int(m.attempt), i+1)
			}
		}
	}
	if w.left.aborts > 0 {
		if t.tcc {
			become(evExpire, message{}, func(b *budget) { b.aborts-- }, "coordinator %d finds the deadline passed", i+1)
		} else {
			become(evAbort, message{}, func(b *budget) { b.aborts-- }, "coordinator %d is asked to turn back", i+1)
		}
	}
	if w.left.skips > 0 && !t.tcc && t.m.runs[mem].phase() == txn.Running {
		for b := range t.n {
			become(evSkip, message{branch: int8(b)}, func(b *budget) { b.skips-- }, "coordinator %d skips step %d for an operator", i+1, b)
		}
	}
	return failed
}

var opWord = [...]string{"", "do", "undo", "try", "confirm", "cancel"}

// client is what the client of a TCC transaction does through a coordinator.
func (t *Transaction) client(w World, i int, yield Yield[World]) error {
	c := &w.coords[i]
	for b := range t.n {
		to, err := t.m.advance(c.mem, evTry, message{branch: int8(b)})
		if err != nil {
			return err
		}
		if to != c.mem {
			next := w
			next.coords[i].mem, next.coords[i].dirty, next.coords[i].soft = to, true, false
			yield(next, "the client asks coordinator %d to try branch %d", i+1, b)
			break // in their order: another one is only another name
		}
	}
	asked := t.m.runs[c.mem].(tccRun)
	early := t.scope.Recorded && c.epoch == w.lease.epoch && !w.lease.expired && asked.phase() == txn.Running
	for b := range t.n {
		if w.tried&(1<<b) == 0 && (c.durable() && c.version > 0 || early) && len(asked.s.Branches) > b && asked.settled(b) {
			next := w
			next.tried |= 1 << b
			yield(next, "the client hears that branch %d is tried", b)
		}
	}
	if int(w.tried) != 1<<t.n-1 {
		return nil
	}
	to, err := t.m.advance(c.mem, evCommit, message{})
	if err != nil || to == c.mem {
		return err
	}
	next := w
	next.coords[i].mem, next.coords[i].dirty, next.coords[i].soft = to, true, false
	next.commit = next.commit || t.scope.Fault == AckBeforeDurable
	yield(next, "the client asks coordinator %d to commit", i+1)
	return nil
}
