package dispatch

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

func TestLostInstance(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		a := w.attend(hello("s", "a", 8, "s.a"))
		w.hub.Send(do("g1", "s.a"), do("g2", "s.a"))
		if n := len(a.take()); n != 2 {
			t.Fatalf("%d calls", n)
		}
		b := w.attend(hello("s", "b", 8, "s.a"))
		start := time.Now()
		a.cancel()
		got := w.outcomes()
		if len(got) != 2 || !time.Now().Equal(start) {
			t.Fatalf("%d outcomes after %v, want 2 at once", len(got), time.Since(start))
		}
		for _, o := range got {
			if o.Outcome != txn.Unknown || o.Message != `the connection to instance "a" of "s" was lost` {
				t.Errorf("outcome is %v %q", o.Outcome, o.Message)
			}
			w.hub.Send(again(do(o.GID, "s.a")))
		}
		calls := b.take()
		if len(calls) != 2 || calls[0].Attempt != 2 {
			t.Fatalf("b got %v", calls)
		}
		b.ok(calls...)
		if got := w.outcomes(); len(got) != 2 || got[0].Outcome != txn.OK {
			t.Errorf("outcomes are %v", got)
		}
		status(t, w, "s: b 0/8, waiting 0, in flight 0")
	})
}

func TestParticipantClosesItsStream(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		p := w.attend(hello("s", "a", 8, "s.a"))
		if err := p.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err, ended := p.lost(); !ended || err.Error() != "EOF" {
			t.Errorf("the stream ended %v with %v, want a clean end", ended, err)
		}
		if s := w.hub.Services(""); len(s) != 0 {
			t.Errorf("services are %v", s)
		}
	})
}

func TestTimeoutThenLateAnswer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		p := w.attend(hello("s", "a", 2, "s.a"))
		quick := do("quick", "s.a")
		quick.Retry.CallTimeout = 2 * time.Second
		w.hub.Send(do("slow", "s.a"), quick)
		calls := p.take()
		p.pingFor(1999*time.Millisecond, time.Second)
		if got := w.outcomes(); len(got) != 0 {
			t.Fatalf("outcomes before the timeout: %v", got)
		}
		p.pingFor(time.Millisecond, time.Second)
		if got := w.outcomes(); len(got) != 1 || got[0].GID != "quick" || got[0].Message != "no answer in 2s" {
			t.Fatalf("outcomes at the timeout: %v", got)
		}
		p.pingFor(8*time.Second, time.Second)
		if got := w.outcomes(); len(got) != 1 || got[0].GID != "slow" || got[0].Message != "no answer in 10s" {
			t.Fatalf("outcomes at the second timeout: %v", got)
		}
		w.hub.Send(do("next", "s.a")) // both credits are still out
		if got := p.take(); len(got) != 0 {
			t.Fatalf("over capacity: %v", got)
		}
		p.ok(calls[0])
		if got := w.outcomes(); len(got) != 1 || got[0].Outcome != txn.OK || string(got[0].Reply) != "done slow" {
			t.Errorf("the late answer came as %v", got)
		}
		if got := gids(p.take()); !slices.Equal(got, []string{"next"}) {
			t.Errorf("after the late answer came %v", got)
		}
		p.cancel() // "quick" is Unknown already
		if got := w.outcomes(); len(got) != 1 || got[0].GID != "next" {
			t.Errorf("lost: %v, want only what had not timed out", got)
		}
	})
}

func TestWaitingCallHasNoTimeout(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.hub.Send(do("g", "s.a"))
		time.Sleep(time.Hour)
		if got := w.outcomes(); len(got) != 0 {
			t.Fatalf("outcomes of a call that waits: %v", got)
		}
		p := w.attend(hello("s", "a", 1, "s.a"))
		if got := gids(p.take()); len(got) != 1 {
			t.Errorf("calls are %v", got)
		}
	})
}

func TestDrain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		a := w.attend(hello("s", "a", 2, "s.a"))
		w.hub.Send(do("g1", "s.a"), do("g2", "s.a"), do("g3", "s.a"))
		calls := a.take()
		a.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Drain{Drain: &amendsv1.Drain{}}})
		synctest.Wait()
		if s := w.hub.Services(""); !s[0].Instances[0].Draining {
			t.Errorf("status does not show the draining: %+v", s)
		}
		a.ok(calls...)
		if got := w.outcomes(); len(got) != 2 || got[0].Outcome != txn.OK {
			t.Errorf("outcomes while draining: %v", got)
		}
		if got := a.take(); len(got) != 0 {
			t.Errorf("calls after the drain: %v", got)
		}
		b := w.attend(hello("s", "b", 2, "s.a"))
		if got := gids(b.take()); !slices.Equal(got, []string{"g3"}) {
			t.Errorf("the other instance got %v", got)
		}
	})
}

func TestCloseEndsStreams(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		p, silent := w.attend(hello("s", "a", 1, "s.a")), w.dial()
		w.hub.Send(do("g1", "s.a"), do("g2", "s.a"))
		if n := len(p.take()); n != 1 {
			t.Fatalf("%d calls", n)
		}
		w.hub.Close()
		if err, ended := p.lost(); !ended || !errors.Is(err, amendsv1.ErrUnavailable) {
			t.Errorf("the stream ended %v with %v", ended, err)
		}
		if _, err := silent.stream.Recv(); !errors.Is(amendsv1.FromError(err), amendsv1.ErrUnavailable) {
			t.Errorf("the stream without a hello ended with %v", err)
		}
		if got := w.outcomes(); len(got) != 0 {
			t.Errorf("delivered after Close: %v", got)
		}
		w.hub.Send(do("g3", "s.a"))
		status(t, w, "")
		stream, err := amendsv1.NewParticipantServiceClient(w.conn).Attend(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(amendsv1.FromError(err), amendsv1.ErrUnavailable) {
			t.Errorf("a new stream ends with %v", err)
		}
	})
}
