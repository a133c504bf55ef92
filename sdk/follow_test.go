package sdk

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// attendCluster runs a participant over a cluster until the test ends.
func attendCluster(t *testing.T, c *Cluster) *attended {
	t.Helper()
	a := &attended{bench: newBench(t), done: make(chan error, 1)}
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	ended := make(chan struct{})
	go func() { a.done <- a.Run(ctx, c); close(ended) }()
	t.Cleanup(func() { stop(); <-ended; a.calls.Wait() })
	return a
}

func answersOK(t *testing.T, s *fakeStream, m *amendsv1.Call) {
	t.Helper()
	s.call(t, m)
	if out := receive(t, "an outcome", s.outcomes); out.GetCode() != codeOK {
		t.Errorf("%v", out)
	}
}

func TestParticipantFollowsMembers(t *testing.T) {
	f, m := newFakeCluster(t, 2)
	a := attendCluster(t, dialFakes(t, m[0]))
	first, second := receive(t, "a stream", m[0].streams), receive(t, "a stream", m[1].streams)
	third := f.member(t)
	f.join(t, third)
	joined := receive(t, "a stream to who joined", third.streams)
	for n, s := range []*fakeStream{first, second, joined} {
		answersOK(t, s, numbered(n))
	}
	f.leave(third) // it still answers: the stream is drained
	receive(t, "the drain", joined.drained)
	m[1].kill() // the others do not notice
	answersOK(t, first, numbered(4))
	a.stop()
	receive(t, "the drain", first.drained)
	receive(t, "the end of the stream", first.closed)
	if err := receive(t, "the end of Run", a.done); err != nil {
		t.Error(err)
	}
}

func TestParticipantBehindBalancer(t *testing.T) {
	f, m := newFakeCluster(t, 3)
	f.change(func() { m[0].says, m[1].says, m[2].says = "", "", "" })
	attendCluster(t, dialAddresses(t, balancer(t, m...)))
	for _, m := range m {
		answersOK(t, receive(t, "a stream", m.streams), numbered(1))
	}
}

// TestConcurrencyIsTheParticipants has every member send as many calls as its
// stream allows.
func TestConcurrencyIsTheParticipants(t *testing.T) {
	const concurrency = 8
	_, m := newFakeCluster(t, 3)
	p := NewChecker("orders", &ParticipantConfig{Concurrency: concurrency, Logger: quiet()})
	var running, most atomic.Int64
	release := make(chan struct{})
	HandleCheck(p, "orders.placed", func(context.Context, string) (CheckResult, error) {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		return CheckCommitted, nil
	})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	c := dialFakes(t, m...)
	go func() { done <- p.Run(ctx, c) }()
	var streams []*fakeStream
	for _, m := range m {
		s := receive(t, "a stream", m.streams)
		streams = append(streams, s)
		var calls []*amendsv1.Call
		for n := range s.hello.GetCapacity() {
			calls = append(calls, &amendsv1.Call{Gid: fmt.Sprint(n), Index: -1, Op: amendsv1.Op_OP_CHECK, Action: "orders.placed"})
		}
		s.call(t, calls...)
	}
	until(t, "as many handlers as may run", func() bool { return running.Load() == concurrency })
	close(release)
	for _, s := range streams {
		for range concurrency {
			if out := receive(t, "an outcome", s.outcomes); out.GetCode() != codeOK {
				t.Errorf("%v", out)
			}
		}
	}
	if most.Load() != concurrency {
		t.Errorf("%d handlers ran at once", most.Load())
	}
	stop()
	if err := receive(t, "the end of Run", done); err != nil {
		t.Error(err)
	}
}

// TestHopelessMembers end Run when there is no other left.
func TestHopelessMembers(t *testing.T) {
	_, m := newFakeCluster(t, 2)
	var refused, reject atomic.Int64
	for i, m := range m {
		m.reject = func(*amendsv1.Hello) error {
			if i == 0 || reject.Load() > 0 {
				refused.Add(1)
				return ErrProtocolVersion.With("member %d", i)
			}
			return nil
		}
	}
	a := attendCluster(t, dialFakes(t, m...))
	s := receive(t, "the stream", m[1].streams)
	until(t, "refusals", func() bool { return refused.Load() > 2 })
	answersOK(t, s, numbered(1))
	reject.Store(1)
	close(s.hangUp)
	err := receive(t, "the end of Run", a.done)
	if !errors.Is(err, ErrProtocolVersion) {
		t.Error(err)
	}
	mustSay(t, err, "member 0")
	mustSay(t, err, "member 1")
}

func TestVerdicts(t *testing.T) {
	v := &verdicts{of: map[any]error{}}
	no := errors.New("no")
	v.join("a")
	v.join("b")
	for i, got := range []error{v.say("a", no), v.say("b", nil), v.leave("c"), v.say("c", no)} {
		if got != nil {
			t.Errorf("%d: %v", i, got)
		}
	}
	if err := v.leave("b"); !errors.Is(err, no) {
		t.Error("a is the only one left, and is hopeless")
	}
}

// TestClusterClosedUnderParticipant is a mistake, and is told.
func TestClusterClosedUnderParticipant(t *testing.T) {
	_, m := newFakeCluster(t, 1)
	c := dialFakes(t, m...)
	a := attendCluster(t, c)
	receive(t, "the stream", m[0].streams)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	mustSay(t, receive(t, "the end of Run", a.done), "closed under it")
}
