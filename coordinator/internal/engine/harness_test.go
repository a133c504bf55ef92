package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// participants is a dispatcher whose participants are one function. Each call
// is answered on a goroutine of its own, as real ones are.
type participants struct {
	answer func(dispatch.Call) txn.Replied // Outcome 0: no answer at all
	engine *Engine
	wg     sync.WaitGroup

	recorded func(dispatch.Call) bool // who promises the same answer again; nil: nobody

	mu   sync.Mutex
	seen []dispatch.Call
}

func (p *participants) Send(calls ...dispatch.Call) {
	for _, c := range calls {
		p.mu.Lock()
		p.seen = append(p.seen, c)
		p.mu.Unlock()
		p.wg.Go(func() {
			r := p.answer(c)
			r.Branch, r.Op, r.Attempt = c.Branch, c.Op, c.Attempt
			if r.Outcome != 0 {
				p.engine.Outcome(dispatch.Outcome{GID: c.GID, Replied: r, Recorded: p.recorded != nil && p.recorded(c)})
			}
		})
	}
}

func (p *participants) Withdraw(string) []dispatch.Call { return nil }

func (p *participants) calls(op txn.Op) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.seen {
		if c.Op == op {
			n++
		}
	}
	return n
}

func ok(dispatch.Call) txn.Replied { return txn.Replied{Outcome: txn.OK, Reply: []byte(`"done"`)} }

// running is an engine under test.
type running struct {
	*Engine
	p    *participants
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

func launch(t *testing.T, st store.Store, cfg *Config, answer func(dispatch.Call) txn.Replied) *running {
	t.Helper()
	if cfg == nil {
		cfg = &Config{}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	e, err := New(t.Context(), st, cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &participants{answer: answer, engine: e}
	e.SetDispatcher(p)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Engine: e, p: p, t: t, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- e.Run(ctx) }()
	t.Cleanup(func() { r.end() })
	return r
}

// end stops the engine gently; it may be called twice.
func (r *running) end() error {
	r.stop()
	err := <-r.done
	r.done <- err
	r.p.wg.Wait()
	return err
}

// startSaga starts until the engine owns its shards.
func (r *running) startSaga(gid string, d *saga.Definition) {
	r.t.Helper()
	for began := time.Now(); ; {
		_, _, err := r.StartSaga(r.t.Context(), gid, d, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, errElsewhere) || time.Since(began) > time.Minute {
			r.t.Fatalf("start %s: %v", gid, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// wait returns the state in which gid has finished or is parked.
func (r *running) wait(gid string) txn.State {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Minute)
	defer cancel()
	rec, err := r.Wait(ctx, gid)
	if err != nil {
		r.t.Fatalf("wait for %s: %v", gid, err)
	}
	return txn.State(rec.State)
}

// steps is a saga of n steps in line, retried without much ado.
func steps(n int, mod ...func(*saga.Definition)) *saga.Definition {
	d := &saga.Definition{Name: "line"}
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for i := range n {
		s := saga.Step{Name: names[i], Action: "svc." + names[i], Payload: []byte(`{}`), Retry: txn.Retry{Initial: time.Millisecond}}
		if i > 0 {
			s.After = []int{i - 1}
		}
		d.Steps = append(d.Steps, s)
	}
	for _, m := range mod {
		m(d)
	}
	if err := d.Validate(); err != nil {
		panic(err)
	}
	return d
}

func newStore() *memstore.Store { return memstore.New(nil) }

// checkTrail reads the audit trail of gid and verifies its chain.
func checkTrail(t *testing.T, st store.Store, gid string) []store.Event {
	t.Helper()
	rec, err := st.Load(t.Context(), gid)
	if err != nil {
		t.Fatal(err)
	}
	evs, err := st.Events(t.Context(), gid, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var prev []byte
	for i, ev := range evs {
		if ev.Seq != int64(i+1) || string(ev.Prev) != string(prev) || string(ev.Hash) != string(Hash(ev)) {
			t.Fatalf("trail of %s broken at event %d: %+v", gid, i+1, ev)
		}
		prev = ev.Hash
	}
	if string(rec.EventHash) != string(prev) || rec.EventSeq != int64(len(evs)) {
		t.Fatalf("trail of %s ends at %d, the record says %d", gid, len(evs), rec.EventSeq)
	}
	return evs
}
