package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/amends-dev/amends/coordinator/store"
)

// batch is what one commit writes, and who waits for it.
type batch struct {
	store.Batch
	items []item
	err   error // ErrConflict, or nil
}

// item is one transaction's part of a batch, in the order of its writes.
type item struct {
	tx     *tx
	rec    store.Record
	events []store.Event
	hooks  []hook
	m      machine // of rec
	leads  bool    // rec says that calls may be ahead of it
	err    error   // the store refuses this one, and only this one
}

// flush starts the commit of what is dirty, unless one is under way: what
// gathers meanwhile makes the next batch.
func (w *worker) flush(ctx context.Context) {
	for w.flying == nil && len(w.dirty) > 0 { // a batch of lost shards is empty
		if b := w.build(time.Now()); len(b.items) > 0 {
			w.hand(ctx, b)
		}
	}
}

func (w *worker) build(now time.Time) *batch {
	w.startsLast()
	n := min(len(w.dirty), maxBatch)
	b := &batch{items: make([]item, 0, n), Batch: store.Batch{Writes: make([]store.Write, 0, n)}}
	leased := make(map[int]bool, n)
	for _, t := range w.dirty[:n] {
		t.dirty, t.soft = false, false
		sh := w.shards[t.rec.Shard]
		if sh == nil || w.txs[t.rec.GID] != t {
			w.giveUp(t, errElsewhere)
			continue
		}
		write, err := t.write(stamp(now), stampOrZero(t.schedule(now, w.rnd.Float64)))
		if err != nil {
			w.log.Error("amends: a transaction cannot be encoded and is left for the sweep", "gid", t.rec.GID, "err", err)
			w.giveUp(t, err)
			continue
		}
		if !leased[t.rec.Shard] {
			leased[t.rec.Shard] = true
			b.Leases = append(b.Leases, store.Lease{Shard: t.rec.Shard, Epoch: sh.epoch})
		}
		if w.e.cfg.Announce != nil {
			write.Messages = w.e.cfg.Announce(write.Record, write.Events)
		}
		b.Writes = append(b.Writes, write)
		b.items = append(b.items, item{tx: t, rec: write.Record, events: write.Events, hooks: t.hooks, m: t.m, leads: t.mLeads()})
		t.hooks, t.flying = nil, true
	}
	w.dirty = append(w.dirty[:0], w.dirty[n:]...)
	return b
}

// startsLast has those that do not fit into the next batch be starts, but for a
// few: what is under way comes first.
func (w *worker) startsLast() {
	starts := func(t *tx) bool { return t.rec.Version == 0 }
	if len(w.dirty) <= maxBatch || !slices.ContainsFunc(w.dirty[:maxBatch], starts) {
		return
	}
	next, rest := make([]*tx, 0, maxBatch), make([]*tx, 0, len(w.dirty))
	for i, t := range w.dirty {
		if len(next) == maxBatch-maxBatch/startEvery {
			rest = append(rest, w.dirty[i:]...)
			break
		}
		if starts(t) {
			rest = append(rest, t)
		} else {
			next = append(next, t)
		}
	}
	w.dirty = slices.Concat(next, rest)
}

// giveUp drops a transaction whose changes in memory cannot become durable.
// Those who wait are told; the sweep finds what the store has of it.
func (w *worker) giveUp(t *tx, err error) {
	hooks := t.hooks
	t.hooks = nil
	w.gone.add(t.rec.GID)
	w.forget(t)
	for _, h := range hooks {
		h(store.Record{}, err)
	}
}

// committed takes a batch back from the committer. When shards of it were lost
// to another coordinator, nothing was written, and the rest of it goes out
// again as it was: exactly the same, since an attempt before may have written
// it after all.
func (w *worker) committed(ctx context.Context, b *batch) {
	w.flying = nil
	lost := w.lostShards(b)
	if len(lost) > 0 {
		if rest := b.without(lost); len(rest.items) > 0 {
			w.hand(ctx, rest)
		}
	}
	now := time.Now()
	for _, it := range b.items {
		if len(lost) > 0 && !lost[it.rec.Shard] {
			continue
		}
		it.tx.flying = false
		if lost[it.rec.Shard] {
			it.err = errElsewhere
		}
		w.conclude(it, now)
	}
}

// without returns the batch less the shards given.
func (b *batch) without(lost map[int]bool) *batch {
	rest := &batch{}
	for _, l := range b.Leases {
		if !lost[l.Shard] {
			rest.Leases = append(rest.Leases, l)
		}
	}
	for i, it := range b.items {
		if !lost[it.rec.Shard] {
			rest.Writes = append(rest.Writes, b.Writes[i])
			rest.items = append(rest.items, it)
		}
	}
	return rest
}

// hand gives a batch to the committer, which is waiting for one.
func (w *worker) hand(ctx context.Context, b *batch) {
	w.flying = b
	select {
	case w.batches <- b:
	case <-ctx.Done():
	}
}

// conclude tells those who waited for an item, and lets its transaction act.
func (w *worker) conclude(it item, now time.Time) {
	if err := it.err; err != nil {
		for _, h := range it.hooks {
			h(store.Record{}, err)
		}
		w.giveUp(it.tx, err)
		return
	}
	it.tx.base, it.tx.leads = it.m, it.leads
	w.takeBack(it.tx) // before anybody hears that it is paused or ended
	for _, h := range it.hooks {
		h(it.rec, nil)
	}
	w.e.rates.note(&it.rec, now)
	w.e.meters.note(&it.rec, it.events)
	w.e.spans.committed(it.tx.trace, &it.rec, it.events, now)
	for _, observe := range w.e.cfg.Observers {
		observe(it.rec, it.events)
	}
	w.e.watch.publish(it.rec)
	t := it.tx
	if t.soft && !t.flying && w.txs[t.rec.GID] == t {
		w.lead(t, now)
	}
	if !t.durable() {
		return // the next batch concludes
	}
	hooks := t.hooks // of those who came while it was being committed and changed nothing
	t.hooks = nil
	for _, h := range hooks {
		h(it.rec, nil)
	}
	if w.txs[t.rec.GID] == t {
		w.act(t, now)
	}
}

// takeBack recalls what is not to be done, or not now. It may be early, when
// that is not durable yet: then what was taken back goes out again, or not, once
// it is.
func (w *worker) takeBack(t *tx) {
	if t.recall && w.txs[t.rec.GID] == t {
		t.recall = false
		w.recall(t)
	}
}

// lostShards drops what was in memory of the shards that a commit found to
// belong to another coordinator, and returns them: all of the batch when the
// store does not say which.
func (w *worker) lostShards(b *batch) map[int]bool {
	if b.err == nil {
		return nil
	}
	lost := map[int]bool{}
	var conflict *store.ConflictError
	if !errors.As(b.err, &conflict) || len(conflict.Shards) == 0 {
		for _, l := range b.Leases {
			lost[l.Shard] = true
		}
		conflict = &store.ConflictError{}
	}
	for _, s := range conflict.Shards {
		lost[s] = true
	}
	w.drop(lost)
	w.e.renewNow()
	return lost
}

// commitLoop is the committer: one batch after the other, until ctx ends.
func (w *worker) commitLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-w.batches:
			begun := time.Now()
			if err := w.commit(ctx, b); ctx.Err() != nil {
				return nil // the engine stops, whatever the store said last
			} else if err != nil {
				return err
			}
			w.e.meters.committed(b, time.Since(begun))
			if err := w.post(ctx, func() { w.committed(ctx, b) }); err != nil {
				return nil // the engine stops
			}
		}
	}
}

// commit writes a batch, however long that takes. Commit is idempotent, so an
// error that leaves it open whether the batch took effect is resolved by
// repeating it.
func (w *worker) commit(ctx context.Context, b *batch) error {
	wait := 5 * time.Millisecond
	for attempt := 1; ; attempt++ {
		err := w.e.store.Commit(ctx, b.Batch)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, store.ErrConflict):
			b.err = err
			return nil
		case errors.Is(err, store.ErrClosed) || ctx.Err() != nil:
			return err
		}
		w.e.meters.commitErrors.Add(1)
		w.log.Warn("amends: commit failed, trying again", "attempt", attempt, "transactions", len(b.items), "err", err)
		if attempt >= 3 && w.commitEach(ctx, b, err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}

// commitEach writes the items of a batch that keeps failing one by one, so
// that one that the store refuses does not hold up the others. It reports
// whether the batch is done with: not in an outage, and not when a shard was
// lost, which the next attempt at the whole batch finds.
func (w *worker) commitEach(ctx context.Context, b *batch, cause error) bool {
	if !w.settled(ctx, b.Leases) {
		return false
	}
	leases := map[int]store.Lease{}
	for _, l := range b.Leases {
		leases[l.Shard] = l
	}
	refused := make([]error, len(b.items))
	for i, write := range b.Writes {
		var done bool
		if refused[i], done = w.commitOne(ctx, leases[write.Record.Shard], write); !done {
			return false
		}
	}
	for i, err := range refused {
		if err != nil {
			w.log.Error("amends: the store refuses a transaction", "gid", b.items[i].rec.GID, "err", err, "batch_err", cause)
			b.items[i].err = unavailable(err)
		}
	}
	return true
}

// commitOne writes one item. It returns the store's error only when it is
// certain that the write did not take effect and never will: then what is in
// memory can be given up, and what the store has be loaded again. done is false
// when that cannot be found out just now.
func (w *worker) commitOne(ctx context.Context, l store.Lease, write store.Write) (refused error, done bool) {
	leases := []store.Lease{l}
	for range oneAttempts {
		refused = w.e.store.Commit(ctx, store.Batch{Leases: leases, Writes: []store.Write{write}})
		if refused == nil {
			return nil, true
		}
		if errors.Is(refused, store.ErrConflict) || !w.settled(ctx, leases) {
			return nil, false
		}
		switch rec, err := w.e.store.Load(ctx, write.Record.GID); {
		case err == nil && rec.Version >= write.Record.Version:
			return nil, true // it took effect unheard
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return nil, false
		}
	}
	return refused, true
}

// settled reports whether the store answers. If it does, what failed before
// under these leases has taken effect or never will: the store's fence.
func (w *worker) settled(ctx context.Context, leases []store.Lease) bool {
	return w.e.store.Commit(ctx, store.Batch{Leases: leases}) == nil
}

func stampOrZero(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return stamp(t)
}
