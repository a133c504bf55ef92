package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestBeginTry: a transaction that begins with its first try is stored with it,
// once, before the try is called, and what follows is as after a begin.
func TestBeginTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate, first, st := make(chan struct{}), 0, &faulty{Store: newStore()}
		st.commit = func(b store.Batch, real func() error) error {
			for _, w := range b.Writes {
				if w.Record.GID == "x" {
					<-gate
				}
				if w.Record.GID == "x" && w.Record.Version == 1 {
					first = len(w.Events)
				}
			}
			return real()
		}
		r := launch(t, st, nil, ok)
		r.p.recorded = always
		r.startSaga("first", steps(1))
		trip, seat := &tcc.Definition{Name: "trip", Timeout: time.Hour}, tcc.Branch{Name: "seat", Action: "svc.seat"}
		answers := make(chan error, 2)
		try := func() {
			reply, err := r.BeginTry(t.Context(), "x", trip, nil, seat)
			if err == nil && string(reply) != `"done"` {
				t.Errorf("reply %s", reply)
			}
			answers <- err
		}
		go try()
		go try() // as a caller does who lost the answer
		synctest.Wait()
		if r.p.calls(txn.Try) > 0 || len(answers) > 0 {
			t.Error("the try was called before it was stored")
		}
		close(gate)
		for range 2 {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if n := r.p.calls(txn.Try); n != 1 || first != 2 {
			t.Errorf("%d calls, and %d events in the first commit, want 1 and 2", n, first)
		}
		other := *trip
		other.Name = "other"
		if _, err := r.BeginTry(t.Context(), "x", &other, nil, seat); !errors.Is(err, amendsv1.ErrGIDConflict) {
			t.Errorf("with other content: %v", err)
		}
		if _, err := r.Commit(t.Context(), "x"); err != nil || r.wait("x") != txn.Committed {
			t.Errorf("commit: %v", err)
		}
		if _, err := r.BeginTry(t.Context(), "x", trip, nil, tcc.Branch{Name: "late", Action: "svc.seat"}); !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("after the decision: %v", err)
		}
		trail := checkTrail(t, st, "x")
		if len(trail) < 2 || trail[0].Type != "started" || trail[1].Type != "try" {
			t.Errorf("trail %v", trail)
		}
	})
}

// TestBeginTryRefused: what is refused was not begun, and a try that is refused
// turns back what it has begun.
func TestBeginTryRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{Quota: func(string) Quota { return Quota{Live: 1} }}, moody)
		trip := &tcc.Definition{Name: "trip", Timeout: time.Minute}
		if _, err := r.BeginTry(t.Context(), "bad", trip, nil, tcc.Branch{Name: "seat", Action: "no"}); !errors.Is(err, amendsv1.ErrInvalidArgument) {
			t.Errorf("a branch that makes no sense: %v", err)
		}
		if _, err := r.BeginTry(t.Context(), "no", trip, nil, tcc.Branch{Name: "seat", Action: "try-refuses.seat"}); !errors.Is(err, amendsv1.ErrRefused) {
			t.Errorf("a try that is refused: %v", err)
		}
		if got := r.wait("no"); got != txn.RolledBack {
			t.Errorf("it is %v", got)
		}
		go func() {
			_, _ = r.BeginTry(t.Context(), wire.Key("a", "1"), trip, nil, tcc.Branch{Name: "seat", Action: "try-hangs.seat"})
		}()
		synctest.Wait()
		if _, err := r.BeginTry(t.Context(), wire.Key("a", "2"), trip, nil, tcc.Branch{Name: "seat", Action: "calm.seat"}); !errors.Is(err, amendsv1.ErrOverloaded) {
			t.Errorf("over the quota: %v", err)
		}
		if _, err := r.Get(t.Context(), wire.Key("a", "2")); !errors.Is(err, amendsv1.ErrNotFound) {
			t.Errorf("and yet it was begun: %v", err)
		}
	})
}
