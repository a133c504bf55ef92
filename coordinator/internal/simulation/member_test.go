package simulation

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/saga/txn"
)

// The cluster.
const (
	members  = 3
	shards   = 8
	leaseTTL = 5 * time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// member is one life of a coordinator.
type member struct {
	*process
	c *coordinator.Coordinator
}

func (w *world) memberName(i int) string { return fmt.Sprintf("m%d", i) }

// member is the coordinator of that name that runs now, or nil.
func (w *world) member(name string) *member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cluster[name]
}

func (w *world) keepMember(name string) {
	w.keep(name, func(p *process) {
		skew := time.Duration(0)
		if w.happens(0.5, "skewed", p.id) {
			skew = w.upTo(4*time.Second, "skew", p.id) - 2*time.Second
			w.say(p.id, "its clock is off by %v", skew.Round(time.Millisecond))
		}
		st := &memberStore{Store: w.store.(*memstore.Store).Reopen(), p: p, w: w, skew: skew}
		c, err := coordinator.New(p.ctx, st, &coordinator.Config{
			Name: p.id, Workers: 1 + w.pick(2, "workers", p.id), LeaseTTL: leaseTTL, StallAfter: 20 * time.Second, Retention: -1,
			DrainTimeout: 100 * time.Millisecond, Logger: quiet,
			Observers: []func(store.Record, []store.Event){func(r store.Record, evs []store.Event) { w.observe(p, r, evs) }},
		})
		if err != nil {
			w.violation("%s cannot be made: %v", p.id, err)
			return
		}
		w.mu.Lock()
		w.cluster[name] = &member{process: p, c: c}
		w.mu.Unlock()
		err = c.Run(p.ctx)
		w.mu.Lock()
		delete(w.cluster, name)
		w.mu.Unlock()
		if err != nil && !p.dead.Load() {
			w.violation("%s ended by itself: %v", p.id, err)
		}
		w.say(p.id, "has ended")
	})
}

// observe sees every transition of every coordinator, as it is durable there.
func (w *world) observe(p *process, r store.Record, events []store.Event) {
	state := txn.State(r.State)
	moves := !state.Finished() && !r.Paused
	if moves && state != txn.Parked && r.NextAt.IsZero() || !moves && !r.NextAt.IsZero() {
		w.violation("%s: %s is %v, paused %v, and due at %v", p.id, r.GID, state, r.Paused, r.NextAt)
	}
	for _, ev := range events {
		w.say(p.id, "%s: %s", r.GID, eventText(ev))
	}
}

// detail is what the simulation reads of an audit event.
type detail struct {
	State, Branch, Op, Outcome, Message string
	Attempt                             int
	Request                             string `json:"request_id"`
}

func detailOf(ev store.Event) (d detail) {
	if err := json.Unmarshal(ev.Data, &d); err != nil {
		d.Message = err.Error() // no state: checkTrail finds it
	}
	return d
}

func eventText(ev store.Event) string {
	d := detailOf(ev)
	text := fmt.Sprintf("#%d %s", ev.Seq, ev.Type)
	for _, s := range []string{d.Branch, d.Op, d.Outcome, d.Message} {
		if s != "" {
			text += " " + s
		}
	}
	return text + " -> " + d.State
}
