package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestTryIsAnsweredAhead: who asked for a try hears of it before it is stored,
// where the participant says it again and no check depends on it. Kills:
// try-unrecorded, try-with-check.
func TestTryIsAnsweredAhead(t *testing.T) {
	for _, c := range []struct {
		recorded func(dispatch.Call) bool
		check    tcc.CheckBack
		early    bool
	}{{always, tcc.CheckBack{}, true}, {nil, tcc.CheckBack{}, false}, {always, tcc.CheckBack{Action: "app.check"}, false}} {
		synctest.Test(t, func(t *testing.T) {
			gate, st := make(chan struct{}), &faulty{Store: newStore()}
			st.commit = func(b store.Batch, real func() error) error {
				for _, w := range b.Writes {
					if w.Record.Version > 2 {
						<-gate
					}
				}
				return real()
			}
			r := launch(t, st, nil, ok)
			r.p.recorded = c.recorded
			r.startSaga("first", steps(1))
			if _, _, err := r.BeginTCC(t.Context(), "x", &tcc.Definition{Name: "trip", Timeout: time.Hour, Check: c.check}, nil); err != nil {
				t.Fatal(err)
			}
			answered, decided := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := r.Try(t.Context(), "x", tcc.Branch{Name: "seat", Action: "svc.seat"})
				answered <- err
			}()
			time.Sleep(time.Second)
			if early := len(answered) > 0; early != c.early {
				t.Errorf("recorded %v, check %q: answered ahead %v", c.recorded != nil, c.check.Action, early)
			}
			go func() { _, err := r.Commit(t.Context(), "x"); decided <- err }()
			time.Sleep(time.Second)
			if len(decided) > 0 || r.p.calls(txn.Confirm) > 0 {
				t.Error("the decision was told, or acted on, before it was stored")
			}
			close(gate)
			if err := <-answered; err != nil {
				t.Error(err)
			}
			if err := <-decided; err != nil || r.wait("x") != txn.Committed {
				t.Errorf("commit: %v", err)
			}
		})
	}
}

// TestCommitAfterALostAnswer: the caller heard that a try took effect, which was
// lost in a crash. Its commit waits until the try is answered again, and is
// refused if the transaction turns back. Kills: commit-does-not-wait.
func TestCommitAfterALostAnswer(t *testing.T) {
	for _, outcome := range []txn.Outcome{txn.OK, txn.Refused} {
		synctest.Test(t, func(t *testing.T) {
			st := newStore()
			first := &faulty{Store: st}
			r1 := launch(t, first, nil, ok)
			r1.p.recorded = always
			r1.startSaga("first", steps(1))
			begin(t, r1, "x", time.Hour)
			if _, err := r1.Try(t.Context(), "x", tcc.Branch{Name: "seat", Action: "svc.seat"}); err != nil {
				t.Fatal(err)
			}
			first.cut.Store(true)
			_ = r1.end()
			r2 := launch(t, st, nil, func(c dispatch.Call) txn.Replied {
				if c.Op == txn.Try {
					time.Sleep(time.Minute)
					return txn.Replied{Outcome: outcome}
				}
				return ok(c)
			})
			r2.startSaga("second", steps(1))
			_, err := r2.Commit(t.Context(), "x")
			want := map[txn.Outcome]txn.State{txn.OK: txn.Committed, txn.Refused: txn.RolledBack}[outcome]
			if got := r2.wait("x"); got != want || (err == nil) != (outcome == txn.OK) {
				t.Errorf("%v: commit says %v, and it is %v", outcome, err, got)
			}
		})
	}
}
