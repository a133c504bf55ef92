package engine

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// away is a dispatcher whose participants are not there yet: calls wait until
// it is told to deliver them.
type away struct {
	mu      sync.Mutex
	waiting []dispatch.Call
}

func (a *away) Send(calls ...dispatch.Call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, calls...)
}

func (a *away) Withdraw(gid string) []dispatch.Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	var back, rest []dispatch.Call
	for _, c := range a.waiting {
		if c.GID == gid {
			back = append(back, c)
		} else {
			rest = append(rest, c)
		}
	}
	a.waiting = rest
	return back
}

func (a *away) deliver() []dispatch.Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	calls := a.waiting
	a.waiting = nil
	return calls
}

// TestTurningBackRecallsWhatNobodySaw has a deadline pass while the participant
// is away. When it comes it hears the undo and not the do.
func TestTurningBackRecallsWhatNobodySaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(t.Context(), newStore(), &Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		a := &away{}
		e.SetDispatcher(a)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()

		two := &saga.Definition{Name: "two", Timeout: time.Minute, Steps: []saga.Step{
			{Name: "a", Action: "svc.a"}, {Name: "b", Action: "svc.b", After: []int{}},
		}}
		if _, _, err := e.StartSaga(t.Context(), "g1", two, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // virtual
		calls := a.deliver()
		if len(calls) != 2 || calls[0].Op != txn.Undo || calls[1].Op != txn.Undo {
			t.Errorf("waiting after the deadline: %+v, want the two undos", calls)
		}
		for _, c := range calls {
			e.Outcome(dispatch.Outcome{GID: c.GID, Replied: txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.OK}})
		}
		rec, err := e.Wait(t.Context(), "g1")
		if err != nil || txn.State(rec.State) != txn.RolledBack {
			t.Errorf("state %v, %v; want ROLLED_BACK", txn.State(rec.State), err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestDrainDoesNotWaitForTheUnseen ends an engine while a call waits for a
// participant that never came.
func TestDrainDoesNotWaitForTheUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := New(t.Context(), newStore(), &Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		e.SetDispatcher(&away{})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		if _, _, err := e.StartSaga(t.Context(), "g1", steps(1), nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("drained in %v, though nothing was under way", d)
		}
	})
}
