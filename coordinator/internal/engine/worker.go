package engine

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/saga/txn"
)

// worker is the one goroutine that touches the transactions of its shards.
type worker struct {
	e      *Engine
	log    *slog.Logger
	inbox  chan func() // runs on the worker's goroutine
	starts chan func() // the same for what is new, which comes after what is under way

	shards   map[int]*shard
	validity time.Time // our leases hold at least until then
	txs      map[string]*tx
	timers   timers
	dirty    []*tx
	held     []held // in the order of their times
	rnd      *rand.Rand

	flying  *batch        // being committed, or nil
	batches chan *batch   // to the committer
	kick    chan struct{} // to the sweeper: look now

	given    map[int]int64 // shards on their way to another owner, with our epoch
	gone     departures
	aside    map[string]bool // services for which transactions were left to the store
	draining bool            // no call goes out any more
}

// shard is what a worker knows of one that it owns.
type shard struct {
	epoch int64
	since uint64 // the departure count when it was acquired
	swept bool   // everything due has been loaded since it was acquired

	leaving bool  // it is being given away: no call goes out
	closed  bool  // and nothing changes any more
	answers []*tx // of which calls are under way, that are waited for before it closes
}

// shut reports whether nothing of a shard may change: it is not ours, or as good
// as not.
func (s *shard) shut() bool { return s == nil || s.closed }

// departures numbers the transactions that left a worker's memory, so that a
// record read from the store is known to be current: it is when nothing left
// under its gid since before it was read.
type departures struct {
	count atomic.Uint64 // read by others before they read the store
	at    map[string]uint64
	ring  [goneSize]string
}

func (d *departures) add(gid string) {
	n := d.count.Add(1)
	slot := &d.ring[n%goneSize]
	if *slot != "" && d.at[*slot]+goneSize <= n {
		delete(d.at, *slot)
	}
	*slot = gid
	d.at[gid] = n
}

// current reports whether what was read from the store when the count was seq
// is still so.
func (d *departures) current(gid string, seq uint64) bool {
	return d.at[gid] <= seq && seq+goneSize > d.count.Load()
}

func newWorker(e *Engine) *worker {
	w := &worker{
		e: e, log: e.cfg.Logger,
		inbox:   make(chan func(), inboxSize),
		starts:  make(chan func(), inboxSize),
		shards:  map[int]*shard{},
		given:   map[int]int64{},
		txs:     map[string]*tx{},
		rnd:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), // jitter, nothing secret
		batches: make(chan *batch),
		kick:    make(chan struct{}, 1),
		aside:   map[string]bool{},
	}
	w.gone.at = map[string]uint64{}
	return w
}

// run is the worker's loop, until ctx ends.
func (w *worker) run(ctx context.Context) error {
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	for {
		w.armTimer(wake)
		select {
		case <-ctx.Done():
			return nil
		case <-wake.C:
		case fn := <-w.inbox:
			fn()
			w.burst()
		case fn := <-w.starts:
			for range len(w.inbox) { // what is older, such as the lease of its shard
				w.runOne(w.inbox)
			}
			fn()
			w.burst()
		}
		now := time.Now()
		w.wakeDue(now)
		w.release(now)
		w.flush(ctx)
	}
}

func (w *worker) armTimer(timer *time.Timer) {
	next := w.timers.next()
	if len(w.held) > 0 && (next.IsZero() || w.held[0].until.Before(next)) {
		next = w.held[0].until
	}
	if next.IsZero() {
		timer.Reset(time.Hour)
		return
	}
	timer.Reset(max(0, time.Until(next)))
}

// wakeDue deals with the transactions whose time has come.
func (w *worker) wakeDue(now time.Time) {
	for t := w.timers.pop(now); t != nil; t = w.timers.pop(now) {
		if w.txs[t.rec.GID] != t || w.shards[t.rec.Shard].shut() {
			continue
		}
		w.expire(t, now)
		w.stall(t, now)
		if t.durable() {
			w.act(t, now)
		}
	}
}

// apply lets the machine decide about an event and queues the change.
func (w *worker) apply(t *tx, ev txn.Event, actor string) error {
	next, err := t.m.advance(ev)
	if err != nil || next == t.m {
		return err
	}
	return w.become(t, next, ev, detailOf(ev, next, actor))
}

// become queues what an event has made of a transaction, with its audit event.
func (w *worker) become(t *tx, next machine, ev txn.Event, d detail) error {
	if err := w.change(t, next, ev, d); err != nil {
		return err
	}
	w.touch(t)
	return nil
}

// change is become without the queue.
func (w *worker) change(t *tx, next machine, ev txn.Event, d detail) error {
	from, to := t.m.phase(), next.phase()
	if !txn.Legal(from, to) {
		return illegal(t.rec.GID, from, to)
	}
	d.Presumed = presumed(t.m, next)
	if err := t.note(ev.EventType(), d, stamp(time.Now())); err != nil {
		return err
	}
	t.m = next
	t.recall = t.recall || from != to && to == txn.RollingBack
	if r, ok := ev.(txn.Replied); !ok || r.Outcome != txn.Unknown {
		t.gotOn, t.since = true, time.Now()
	}
	return nil
}

// touch queues a transaction for the next batch.
func (w *worker) touch(t *tx) {
	if !t.dirty || t.soft {
		t.dirty, t.soft = true, false
		w.dirty = append(w.dirty, t)
	}
}

// harden has what is soft stored with the next batch: somebody waits for it.
func (w *worker) harden(t *tx) {
	if t.soft {
		w.touch(t)
	}
}

// act does what a durable transaction asks for: calls that are due go out, a
// timer is set for the rest, and one that needs nothing leaves memory.
func (w *worker) act(t *tx, now time.Time) {
	if t.fresh {
		t.schedule(now, w.rnd.Float64)
	}
	t.answerTries()
	sh := w.shards[t.rec.Shard]
	if sh == nil {
		w.forget(t)
		return
	}
	if w.commitsLate(t) {
		return
	}
	if t.rec.Kind == KindBulk {
		w.driveBulk(t)
		return
	}
	if t.idle() {
		if t.rec.Paused {
			t.dismiss(errPaused)
		}
		w.leave(t)
		return
	}
	if w.draining || sh.leaving {
		return // what is due stays in the store for whoever comes next
	}
	if w.setsAside(t) {
		return
	}
	w.send(t, now)
	wake := t.nextWake()
	if w.sleeps(t, wake, now) {
		w.leave(t)
		return
	}
	w.timers.set(t, wake)
}

// send hands the calls that are due to the dispatcher. A worker whose leases
// may have run out (it was paused) causes no effect until they are renewed.
func (w *worker) send(t *tx, now time.Time) {
	held := w.holds(now)
	for i := range t.calls {
		c := &t.calls[i]
		switch {
		case c.sent || c.due.After(now) || t.rec.Paused:
		case !held:
			c.due = now.Add(w.e.cfg.LeaseTTL / 10)
		default:
			c.sent, c.at = true, now
			w.e.dispatcher.Send(dispatch.Call{GID: t.rec.GID, Call: c.Call, Expires: t.expires(), Trace: t.trace, New: !t.begun})
		}
	}
}

// recall takes back the calls that no participant has seen. Those that are
// still wanted count as not sent.
func (w *worker) recall(t *tx) {
	for _, back := range w.e.dispatcher.Withdraw(t.rec.GID) {
		for i := range t.calls {
			if c := &t.calls[i]; c.same(back.Call) {
				c.sent = false
			}
		}
	}
}

// expires is the deadline that participants learn: of TCC reservations only.
func (t *tx) expires() time.Time {
	if t.rec.Kind == KindTCC {
		return t.rec.Deadline
	}
	return time.Time{}
}

// sleeps reports whether a transaction has nothing to do for so long that it
// is not worth its memory: the sweep will find it.
func (w *worker) sleeps(t *tx, wake, now time.Time) bool {
	if wake.Before(now.Add(2 * horizon)) {
		return false
	}
	return !t.calling() && len(t.tries) == 0 && len(t.commit) == 0
}

// leave drops a durable transaction from memory.
func (w *worker) leave(t *tx) {
	if t.rec.Version != t.loaded { // else whoever has read it knows it as it is
		w.gone.add(t.rec.GID)
	}
	w.forget(t)
}

// forget drops a transaction from memory, whatever its state.
func (w *worker) forget(t *tx) {
	if w.txs[t.rec.GID] != t {
		return
	}
	delete(w.txs, t.rec.GID)
	w.e.live.Delete(t.rec.GID)
	t.room.leave(t.waits)
	w.e.quotas.leave(&t.rec)
	w.e.dispatcher.Withdraw(t.rec.GID)
	w.timers.set(t, time.Time{})
	t.dismiss(errElsewhere)
	t.calls = nil
}

// adopt takes a transaction into memory.
func (w *worker) adopt(t *tx, r *room) {
	for _, c := range t.m.outstanding() {
		t.waits = appendService(t.waits, c.Action)
	}
	t.waits = inNamespace(t.rec.Namespace, t.waits)
	t.room, t.patience = r, w.e.cfg.StallAfter
	r.enter(t.waits)
	if r != w.e.started { // a start has been counted
		w.e.quotas.enter(&t.rec)
	}
	w.txs[t.rec.GID] = t
	w.e.live.Store(t.rec.GID, nil)
}

// stamp is a time as the store keeps it.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
