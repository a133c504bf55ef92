package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// of has every step of a saga call one service.
func of(service string) func(*saga.Definition) {
	return func(d *saga.Definition) {
		for i := range d.Steps {
			d.Steps[i].Action = service + "." + d.Steps[i].Name
		}
	}
}

// unless answers the calls of all services but the dead ones.
func unless(dead ...string) func(dispatch.Call) txn.Replied {
	return func(c dispatch.Call) txn.Replied {
		service, _ := txn.SplitAction(c.Action)
		if slices.Contains(dead, service) {
			return txn.Replied{} // waits for a participant for ever
		}
		return ok(c)
	}
}

// fill starts sagas until the coordinator refuses one, and returns how many it
// took and the refusal.
func fill(t *testing.T, r *running, service string) (int, *amendsv1.Error) {
	t.Helper()
	for n := 0; ; n++ {
		_, _, err := r.StartSaga(t.Context(), fmt.Sprintf("%s-%d", service, n), steps(1, of(service)), nil)
		var full *amendsv1.Error
		switch {
		case errors.As(err, &full) && errors.Is(err, amendsv1.ErrOverloaded) && full.RetryAfter > 0:
			return n, full
		case err != nil || n > 1000:
			t.Fatalf("start %d: %v", n, err)
		}
	}
}

// TestDeadServicesLeaveRoom: services that are away fill what is their share
// of a coordinator, whatever is started for them; all others go on.
func TestDeadServicesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{MaxLive: 64}, unless("dead", "gone", "lost"))
		if n, full := fill(t, r, "dead"); n != 32 || full.Metadata["service"] != "dead" {
			t.Errorf("%d sagas wait for the dead service, want 32; then: %v", n, full)
		}
		fill(t, r, "gone")
		fill(t, r, "lost")
		both := steps(2, func(d *saga.Definition) { d.Steps[0].Action, d.Steps[1].Action = "well.a", "dead.b" })
		if _, _, err := r.StartSaga(t.Context(), "both", both, nil); !errors.Is(err, amendsv1.ErrOverloaded) {
			t.Errorf("a saga that would come to wait for the dead service: %v, want ErrOverloaded", err)
		}
		begin(t, r, "x", time.Minute)
		if _, err := r.Try(t.Context(), "x", tcc.Branch{Name: "a", Action: "dead.a"}); !errors.Is(err, amendsv1.ErrOverloaded) {
			t.Errorf("a try at the dead service: %v, want ErrOverloaded", err)
		}
		if _, err := r.Try(t.Context(), "x", tcc.Branch{Name: "b", Action: "well.b"}); err != nil {
			t.Errorf("a try at another service: %v", err)
		}
		for i := range 200 {
			gid := fmt.Sprintf("well-%d", i)
			if _, _, err := r.StartSaga(t.Context(), gid, steps(2, of("well")), nil); err != nil {
				t.Fatalf("saga %d of a service that is well: %v (%d live)", i, err, r.Live())
			}
			r.wait(gid)
		}
	})
}

// TestLaterStepsCount: what comes to wait for a dead service in a later step
// counts as what began with it.
func TestLaterStepsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{MaxLive: 64}, unless("dead"))
		started := 0
		for ; started < 64; started++ {
			d := steps(2, of("dead"))
			d.Steps[0].Action = fmt.Sprintf("well%d.a", started)
			_, _, err := r.StartSaga(t.Context(), fmt.Sprintf("g%d", started), d, nil)
			if errors.Is(err, amendsv1.ErrOverloaded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if started != 32 {
			t.Errorf("%d sagas wait for the dead service in their second step, want 32", started)
		}
	})
}

// TestTakeoverLeavesRoom: whoever takes over more transactions of dead services
// than it has room for takes in their share, drives all others, starts new
// ones, and drives the rest when the services are back.
func TestTakeoverLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		st := newStore()
		first := &faulty{Store: st}
		r1 := launch(t, first, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		for i := range n {
			r1.startSaga(fmt.Sprintf("dead-%d", i), steps(1, of("dead")))
		}
		for i := range 30 {
			r1.startSaga(fmt.Sprintf("well-%d", i), steps(2, of("well")))
		}
		synctest.Wait()
		first.cut.Store(true)
		_ = r1.end()

		var back atomic.Bool
		r2 := launch(t, st, &Config{MaxLive: 20}, func(c dispatch.Call) txn.Replied {
			if service, _ := txn.SplitAction(c.Action); service == "dead" {
				for !back.Load() {
					time.Sleep(time.Second) // virtual
				}
			}
			return ok(c)
		})
		for i := range 30 {
			r2.wait(fmt.Sprintf("well-%d", i))
		}
		time.Sleep(2 * fullSweep)
		if live, room := r2.Live(), 20*owedFactor; live > room/2+1 {
			t.Errorf("%d transactions of the dead service are in memory, want half of %d", live, room)
		}
		if _, _, err := r2.StartSaga(t.Context(), "new", steps(1, of("well")), nil); err != nil {
			t.Errorf("a start beside what is owed: %v", err)
		}
		back.Store(true)
		began := time.Now()
		for i := range n {
			if got := r2.wait(fmt.Sprintf("dead-%d", i)); got != txn.Committed {
				t.Fatalf("dead-%d is %v", i, got)
			}
		}
		if d := time.Since(began); d > fullSweep {
			t.Errorf("what was set aside took %v after the service was back", d)
		}
		synctest.Wait()
		if r2.Live() != 0 || len(r2.owed.waiting) != 0 || len(r2.started.waiting) != 0 {
			t.Errorf("at the end %d are live, %v and %v are waited for", r2.Live(), r2.owed.waiting, r2.started.waiting)
		}
	})
}

// TestNoAdmissionInTheDrain: while calls under way are waited for, nothing new
// is taken, be it from callers or from the store.
func TestNoAdmissionInTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		answer := make(chan struct{})
		r := launch(t, st, &Config{DrainTimeout: time.Minute}, func(c dispatch.Call) txn.Replied {
			if c.GID == "slow" {
				<-answer
			}
			return ok(c)
		})
		r.startSaga("slow", steps(1))
		begin(t, r, "asleep", 3*time.Minute)
		time.Sleep(time.Second)
		go r.stop()
		synctest.Wait()
		// Its deadline comes near in the drain: the sweep finds it.
		late := make(chan error, 2)
		go func() { _, _, err := r.StartSaga(t.Context(), "late", steps(1), nil); late <- err }()
		go func() { _, err := r.Commit(t.Context(), "asleep"); late <- err }()
		synctest.Wait()
		if len(late) != 2 {
			t.Fatal("requests in the drain are left waiting")
		}
		for range 2 {
			if err := <-late; !errors.Is(err, amendsv1.ErrUnavailable) {
				t.Errorf("a request in the drain: %v, want ErrUnavailable", err)
			}
		}
		rec := r.newRecord("due", KindSaga, "line", nil, 0, nil)
		if w := r.workerOf(rec.Shard); !askResume(t, w) {
			t.Error("the drain takes in what the store has")
		}
		close(answer)
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Load(context.Background(), "late"); err == nil {
			t.Error("a start in the drain was stored")
		}
	})
}

// askResume gives a worker a record of the store and reports whether it finds
// no room for it.
func askResume(t *testing.T, w *worker) bool {
	t.Helper()
	refused := make(chan bool, 1)
	if err := w.post(t.Context(), func() {
		rec, _ := w.e.store.Load(t.Context(), "asleep")
		refused <- !w.resume([]revived{revive(rec)}, w.gone.count.Load()) && w.txs["asleep"] == nil
	}); err != nil {
		t.Fatal(err)
	}
	return <-refused
}

// TestCallUnderWayStaysInMemory: a transaction whose next try is far away stays
// while another call of it is under way, whose answer would find nobody.
func TestCallUnderWayStaysInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Int32
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			switch {
			case c.Name == "b" && c.Attempt == 1:
				return txn.Replied{Outcome: txn.Unknown}
			case c.Name == "a":
				slow.Add(1)
				time.Sleep(10 * time.Minute) // virtual
			}
			return ok(c)
		})
		r.startSaga("g1", &saga.Definition{Name: "two", Steps: []saga.Step{
			{Name: "a", Action: "svc.a"},
			{Name: "b", Action: "svc.b", Retry: txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}},
		}})
		time.Sleep(55 * time.Minute)
		if got := r.wait("g1"); got != txn.Committed || slow.Load() != 1 {
			t.Errorf("state %v after %d calls of the slow step, want 1", got, slow.Load())
		}
	})
}
