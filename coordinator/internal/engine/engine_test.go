package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

func TestCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, ok)
		r.startSaga("g1", steps(3))
		if got := r.wait("g1"); got != txn.Committed {
			t.Fatalf("state %v, want COMMITTED", got)
		}
		evs := checkTrail(t, st, "g1")
		if len(evs) != 4 || evs[0].Type != "started" {
			t.Fatalf("want started and three replies, got %d events, the first %q", len(evs), evs[0].Type)
		}
		synctest.Wait() // waiters hear of the end before it has left memory
		if r.Live() != 0 {
			t.Errorf("%d transactions still in memory", r.Live())
		}
	})
}

func TestRefusalUndoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Name == "c" && c.Op == txn.Do {
				return txn.Replied{Outcome: txn.Refused, Message: "no money"}
			}
			return ok(c)
		})
		r.startSaga("g1", steps(3))
		if got := r.wait("g1"); got != txn.RolledBack {
			t.Fatalf("state %v, want ROLLED_BACK", got)
		}
		if n := r.p.calls(txn.Undo); n != 3 {
			t.Errorf("%d undos, want 3: the refused step is undone too", n)
		}
		checkTrail(t, st, "g1")
	})
}

func TestUnknownIsRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if tries.Add(1) < 4 {
				return txn.Replied{Outcome: txn.Unknown, Message: "went away"}
			}
			return ok(c)
		})
		began := time.Now()
		r.startSaga("g1", steps(1, func(d *saga.Definition) {
			d.Steps[0].Retry = txn.Retry{Initial: time.Second, Factor: 2, Jitter: -1}
		}))
		if got := r.wait("g1"); got != txn.Committed {
			t.Fatalf("state %v, want COMMITTED", got)
		}
		if d := time.Since(began); d < 7*time.Second || d > 8*time.Second {
			t.Errorf("took %v, want 1 s + 2 s + 4 s", d)
		}
	})
}

func TestDeadlineTurnsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do {
				return txn.Replied{} // never answers
			}
			return ok(c)
		})
		r.startSaga("g1", steps(2, func(d *saga.Definition) { d.Timeout = time.Minute }))
		if got := r.wait("g1"); got != txn.RolledBack {
			t.Fatalf("state %v, want ROLLED_BACK", got)
		}
		rec, _ := st.Load(t.Context(), "g1")
		if rec.Reason == "" {
			t.Error("no reason on the record")
		}
	})
}

func TestStartIsIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, ok)
		r.startSaga("g1", steps(2))
		r.wait("g1")
		_, created, err := r.StartSaga(t.Context(), "g1", steps(2), nil)
		if err != nil || created {
			t.Errorf("same content again: created=%v, err=%v", created, err)
		}
		_, _, err = r.StartSaga(t.Context(), "g1", steps(3), nil)
		if !errors.Is(err, amendsv1.ErrGIDConflict) {
			t.Errorf("other content: %v, want ErrGIDConflict", err)
		}
		_, _, err = r.StartSaga(t.Context(), "g1", steps(2), map[string]string{"k": "v"})
		if !errors.Is(err, amendsv1.ErrGIDConflict) {
			t.Errorf("other labels: %v, want ErrGIDConflict", err)
		}
	})
}

func TestConcurrentStartsOfOneGIDRunOnce(t *testing.T) {
	r := launch(t, newStore(), nil, ok)
	r.startSaga("first", steps(1))
	for i := range 200 {
		gid := fmt.Sprintf("g%d", i)
		var created atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, c, err := r.StartSaga(t.Context(), gid, steps(1), nil)
				if err != nil {
					t.Errorf("start: %v", err)
				}
				if c {
					created.Add(1)
				}
				r.wait(gid)
			})
		}
		wg.Wait()
		if created.Load() != 1 {
			t.Fatalf("%s was created %d times", gid, created.Load())
		}
	}
	if n := r.p.calls(txn.Do); n != 201 {
		t.Errorf("%d calls for 201 one-step sagas", n)
	}
}

func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{MaxLive: 10}, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		for i := range 10 {
			r.startSaga(fmt.Sprintf("g%d", i), steps(1, of(fmt.Sprintf("svc%d", i))))
		}
		_, _, err := r.StartSaga(t.Context(), "over", steps(1, of("svc10")), nil)
		var e *amendsv1.Error
		if !errors.As(err, &e) || !errors.Is(err, amendsv1.ErrOverloaded) || e.RetryAfter <= 0 {
			t.Fatalf("start over the limit: %v, want ErrOverloaded with a delay", err)
		}
		if _, err := r.Get(t.Context(), "over"); !errors.Is(err, amendsv1.ErrNotFound) {
			t.Errorf("the refused start left something: %v", err)
		}
	})
}

func TestTCC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Try && c.Expires.IsZero() {
				return txn.Replied{Outcome: txn.Refused, Message: "a try without an expiry"}
			}
			return ok(c)
		})
		r.startSaga("warm-up", steps(1))
		begin := func(gid string) {
			if _, _, err := r.BeginTCC(t.Context(), gid, &tcc.Definition{Name: "trip", Timeout: time.Minute}, nil); err != nil {
				t.Fatal(err)
			}
		}
		seat := tcc.Branch{Name: "seat", Action: "flights.seat", Payload: []byte(`{}`)}
		begin("c")
		if reply, err := r.Try(t.Context(), "c", seat); err != nil || string(reply) != `"done"` {
			t.Fatalf("try: %q, %v", reply, err)
		}
		if reply, err := r.Try(t.Context(), "c", seat); err != nil || string(reply) != `"done"` {
			t.Fatalf("same try again: %q, %v", reply, err)
		}
		if _, err := r.Commit(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		if got := r.wait("c"); got != txn.Committed {
			t.Errorf("state %v, want COMMITTED", got)
		}
		if _, err := r.Try(t.Context(), "c", tcc.Branch{Name: "room", Action: "hotels.room"}); !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("try after the decision: %v", err)
		}
		if _, err := r.Abort(t.Context(), "c", "me", "late"); !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("abort after the commit: %v", err)
		}
		begin("late")
		if _, err := r.Try(t.Context(), "late", seat); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // virtual
		if _, err := r.Commit(t.Context(), "late"); !errors.Is(err, amendsv1.ErrDeadlinePassed) {
			t.Errorf("commit after the deadline: %v, want ErrDeadlinePassed", err)
		}
		if got := r.wait("late"); got != txn.RolledBack {
			t.Errorf("state %v, want ROLLED_BACK", got)
		}
		checkTrail(t, st, "late")
	})
}

func TestRefusedTryTellsTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Try && c.Name == "room" {
				return txn.Replied{Outcome: txn.Refused, Message: "fully booked"}
			}
			return ok(c)
		})
		r.startSaga("warm-up", steps(1))
		if _, _, err := r.BeginTCC(t.Context(), "x", &tcc.Definition{Name: "trip", Timeout: time.Minute}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Try(t.Context(), "x", tcc.Branch{Name: "seat", Action: "flights.seat"}); err != nil {
			t.Fatal(err)
		}
		_, err := r.Try(t.Context(), "x", tcc.Branch{Name: "room", Action: "hotels.room"})
		var e *amendsv1.Error
		if !errors.As(err, &e) || !errors.Is(err, amendsv1.ErrRefused) || e.Metadata["branch"] != "room" {
			t.Fatalf("refused try: %v", err)
		}
		if got := r.wait("x"); got != txn.RolledBack || r.p.calls(txn.Cancel) != 2 {
			t.Errorf("state %v with %d cancels, want ROLLED_BACK with 2", got, r.p.calls(txn.Cancel))
		}
	})
}

func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Do && c.Name == "b" {
				return txn.Replied{}
			}
			return ok(c)
		})
		r.startSaga("g1", steps(2))
		if _, err := r.Abort(t.Context(), "g1", "ops@example", "changed my mind"); err != nil {
			t.Fatal(err)
		}
		if got := r.wait("g1"); got != txn.RolledBack {
			t.Errorf("state %v, want ROLLED_BACK", got)
		}
		if _, err := r.Abort(t.Context(), "nobody", "", ""); !errors.Is(err, amendsv1.ErrNotFound) {
			t.Errorf("abort of nothing: %v", err)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		r.startSaga("g1", steps(1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Wait(ctx, "g1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: %v, want the context's error", err)
		}
	})
}

func TestSleepersLeaveMemoryAndComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healthy atomic.Bool
		r := launch(t, newStore(), nil, func(c dispatch.Call) txn.Replied {
			if !healthy.Load() {
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		r.startSaga("g1", steps(1, func(d *saga.Definition) {
			d.Steps[0].Retry = txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}
		}))
		time.Sleep(time.Minute)
		synctest.Wait()
		if r.Live() != 0 {
			t.Errorf("a transaction that sleeps for an hour is kept in memory")
		}
		healthy.Store(true)
		time.Sleep(time.Hour)
		if got := r.wait("g1"); got != txn.Committed {
			t.Errorf("state %v, want COMMITTED", got)
		}
	})
}
