package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// TestPauseTakesCallsBackBeforeItIsTold: whoever hears that a transaction is
// paused may rely on it, also while an answer that came meanwhile is being
// committed.
func TestPauseTakesCallsBackBeforeItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := map[int64]chan struct{}{4: make(chan struct{}), 5: make(chan struct{})} // by version
		st := &faulty{Store: newStore(), commit: func(b store.Batch, real func() error) error {
			for _, w := range b.Writes {
				if c := hold[w.Record.Version]; c != nil {
					<-c
				}
			}
			return real()
		}}
		e, err := New(t.Context(), st, &Config{Logger: slog.New(slog.DiscardHandler), DrainTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		a := &away{}
		e.SetDispatcher(a)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		defer func() { stop(); <-ended }()
		d := steps(3, func(d *saga.Definition) { d.Steps[1].After, d.Steps[2].After = nil, nil }) // all at once
		if _, _, err := e.StartSaga(t.Context(), "g", d, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		say := func(c dispatch.Call, o txn.Outcome) {
			e.Outcome(dispatch.Outcome{GID: "g", Replied: txn.Replied{
				Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: o}})
		}
		calls := a.deliver()
		say(calls[0], txn.Unknown) // version 2: the next attempt waits for an instance
		time.Sleep(time.Second)
		say(calls[1], txn.OK) // version 3
		time.Sleep(time.Second)
		told := make(chan error, 1)
		go func() { // version 4
			_, err := e.Act(t.Context(), Command{Verb: pauseIt, GID: "g"})
			told <- err
		}()
		synctest.Wait()
		say(calls[2], txn.OK) // version 5
		synctest.Wait()
		close(hold[4])
		if err := <-told; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if late := a.deliver(); len(late) > 0 {
			t.Errorf("%v of %s goes out after the pause was acknowledged", late[0].Op, late[0].Name)
		}
		close(hold[5])
	})
}

// TestETagOfWhatMovesOn: an answer that is yet to be committed counts, though
// the version is the one that the operator saw.
func TestETagOfWhatMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		st := &faulty{Store: newStore(), commit: func(b store.Batch, real func() error) error {
			if b.Writes[0].Record.GID == "other" {
				<-hold
			}
			return real()
		}}
		answer := make(chan struct{})
		r := launch(t, st, &Config{Workers: 1}, func(c dispatch.Call) txn.Replied {
			<-answer
			return ok(c)
		})
		r.startSaga("g", steps(2))
		seen, err := r.Get(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _, _ = r.StartSaga(t.Context(), "other", steps(1), nil) }()
		synctest.Wait()
		answer <- struct{}{} // it has got on, and waits for the commit of the other
		synctest.Wait()
		told := make(chan error, 1)
		go func() {
			_, err := r.act(Command{Verb: skip, GID: "g", Branch: "b", ETag: etag(&seen)})
			told <- err
		}()
		synctest.Wait()
		close(hold)
		close(answer)
		if err := <-told; !errors.Is(err, amendsv1.ErrETag) {
			t.Errorf("with the etag of what has moved on: %v", err)
		}
	})
}

// TestResumeBeyondTheDeadline turns back at once: nothing more is done.
func TestResumeBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, unknownB)
		r.startSaga("g", steps(2, func(d *saga.Definition) {
			d.Timeout, d.Steps[1].Retry = time.Minute, txn.Retry{Initial: 5 * time.Second}
		}))
		time.Sleep(30 * time.Second)
		r.mustAct(Command{Verb: pauseIt, GID: "g"})
		time.Sleep(time.Hour)
		before := r.p.calls(txn.Do)
		rec := r.mustAct(Command{Verb: resume, GID: "g"})
		if state := r.wait("g"); state != txn.RolledBack || txn.State(rec.State) != txn.RollingBack {
			t.Errorf("resumed it is %v and ends %v, want ROLLING_BACK and ROLLED_BACK", txn.State(rec.State), state)
		}
		if n := r.p.calls(txn.Do) - before; n != 0 {
			t.Errorf("%d calls to do what is undone at once", n)
		}
	})
}

// TestStallsAfterResume, though its next try is far away and it left memory.
func TestStallsAfterResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, &Config{StallAfter: 10 * time.Minute}, unknownB)
		stuckSagas(r, 1)
		time.Sleep(time.Minute)
		r.mustAct(Command{Verb: pauseIt, GID: "g000"})
		r.mustAct(Command{Verb: resume, GID: "g000"})
		time.Sleep(12 * time.Minute)
		if rec, err := st.Load(t.Context(), "g000"); err != nil || !rec.Stalled || rec.WaitsFor != "svc" {
			t.Errorf("stalled %v for %q, %v", rec.Stalled, rec.WaitsFor, err)
		}
	})
}

// TestNotStalledWhileItGetsOn: the store keeps the answer waiting for which it
// has waited, and not the participant.
func TestNotStalledWhileItGetsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, answer := make(chan struct{}), make(chan struct{})
		st := &faulty{Store: newStore(), commit: func(b store.Batch, real func() error) error {
			if b.Writes[0].Record.GID == "other" {
				<-hold
			}
			return real()
		}}
		r := launch(t, st, &Config{Workers: 1, StallAfter: 10 * time.Second}, func(c dispatch.Call) txn.Replied {
			if c.Name == "a" {
				<-answer
			}
			return unknownB(c)
		})
		r.startSaga("g", steps(2, func(d *saga.Definition) {
			d.Steps[1].After = nil // both at once
			d.Steps[1].Retry = txn.Retry{Initial: 30 * time.Second, Cap: time.Hour, Jitter: -1}
		}))
		time.Sleep(19 * time.Second) // stalled
		go func() { _, _, _ = r.StartSaga(t.Context(), "other", steps(1), nil) }()
		time.Sleep(time.Second)
		answer <- struct{}{}
		time.Sleep(15 * time.Second) // step b is due meanwhile
		close(hold)
		close(answer)
		time.Sleep(time.Second)
		if got := trailOf(t, st, "g"); got != "started replied stalled replied replied" {
			t.Errorf("trail %q", got)
		}
	})
}

// TestTryOfWhatDoesNotMove: who tries a branch of a paused transaction is told
// to come again, of one that is abandoned meanwhile that it is decided.
func TestTryOfWhatDoesNotMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), nil, hang)
		for _, gid := range []string{"paused", "abandoned"} {
			if _, _, err := r.BeginTCC(t.Context(), gid, &tcc.Definition{Name: "t", Timeout: time.Hour}, nil); err != nil {
				t.Fatal(err)
			}
		}
		r.mustAct(Command{Verb: pauseIt, GID: "paused"})
		b := tcc.Branch{Name: "b", Action: "svc.b"}
		_, err := r.Try(t.Context(), "paused", b)
		if !errors.Is(err, amendsv1.ErrUnavailable) || !strings.Contains(err.Error(), "paused") {
			t.Errorf("a try of what is paused: %v", err)
		}
		told := make(chan error, 1)
		go func() {
			_, err := r.Try(t.Context(), "abandoned", b)
			told <- err
		}()
		synctest.Wait()
		r.mustAct(Command{Verb: abandon, GID: "abandoned"})
		if err := <-told; !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("a try of what was abandoned: %v", err)
		}
	})
}

// TestCrowdsAreOfANamespace: a service that is away in one namespace takes no
// room from that of the same name in another.
func TestCrowdsAreOfANamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{MaxLive: 32}, func(c dispatch.Call) txn.Replied {
			if strings.HasPrefix(c.GID, "blue") {
				return txn.Replied{}
			}
			return ok(c)
		})
		var err error
		for i := 0; err == nil && i < 32; i++ {
			_, _, err = r.StartSaga(t.Context(), wire.Key("blue", fmt.Sprint(i)), steps(1), nil)
		}
		if !errors.Is(err, amendsv1.ErrOverloaded) || !strings.Contains(err.Error(), `service "svc"`) {
			t.Fatalf("one service took all: %v", err)
		}
		r.startSaga("g", steps(1))
		if got := r.wait("g"); got != txn.Committed {
			t.Errorf("it is %v", got)
		}
		for ns, want := range map[string]*amendsv1.Error{"": nil, "blue": amendsv1.ErrOverloaded} {
			gid := wire.Key(ns, "tcc")
			if _, _, err := r.BeginTCC(t.Context(), gid, &tcc.Definition{Name: "t", Timeout: time.Minute}, nil); err != nil {
				t.Fatal(err)
			}
			_, err := r.Try(t.Context(), gid, tcc.Branch{Name: "b", Action: "svc.b"})
			if (err == nil) != (want == nil) || want != nil && !errors.Is(err, want) {
				t.Errorf("a try in %q: %v, want %v", ns, err, want)
			}
		}
	})
}

// TestRatesForgetNamespaces that were not heard of for long: anybody may name
// one where nobody is asked who they are.
func TestRatesForgetNamespaces(t *testing.T) {
	var r rates
	now := time.Unix(1e9, 0)
	for i := range 10_000 {
		r.note(&store.Record{Version: 1, Namespace: fmt.Sprint(i)}, now.Add(time.Duration(i)*time.Second))
	}
	if n := len(r.counts); n > 3*rateWindow {
		t.Errorf("%d namespaces are known, of which %d can count", n, rateWindow)
	}
	for i := 10_000 - rateWindow + 1; i < 10_000; i++ {
		if r.counts[fmt.Sprint(i)] == nil {
			t.Fatalf("namespace %d is forgotten, and counts", i)
		}
	}
}
