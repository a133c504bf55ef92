package dispatch

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// serve answers every call OK until the stream ends, never over capacity.
func (w *world) serve(service, instance string, capacity int, running *sync.WaitGroup) {
	p := w.dial()
	p.send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Hello{
		Hello: hello(service, instance, capacity, service+".a")}})
	running.Go(func() {
		for {
			m, err := p.stream.Recv()
			if err != nil {
				return
			}
			calls := m.GetCalls().GetCalls()
			if len(calls) > capacity {
				w.t.Errorf("%d calls at once, capacity is %d", len(calls), capacity)
			}
			out := make([]*amendsv1.Outcome, 0, len(calls))
			for _, c := range calls {
				out = append(out, answerTo(c, codeOK, ""))
			}
			if err := p.stream.Send(&amendsv1.AttendRequest{Message: &amendsv1.AttendRequest_Outcomes{
				Outcomes: &amendsv1.Outcomes{Outcomes: out}}}); err != nil {
				return
			}
		}
	})
}

// flood sends n calls to four instances of two services and returns when each
// is answered.
func flood(t testing.TB, n int) {
	var left atomic.Int64
	left.Store(int64(n))
	answered := make(chan struct{})
	seen := make([]atomic.Bool, n)
	w := newWorld(t, nil, func(o Outcome) {
		if o.Outcome != txn.OK {
			t.Errorf("outcome is %v %q", o.Outcome, o.Message)
		}
		if seen[o.Branch].Swap(true) {
			t.Errorf("call %d was answered twice", o.Branch)
		}
		if left.Add(-1) == 0 {
			close(answered)
		}
	})
	var running sync.WaitGroup
	for i := range 4 {
		w.serve([]string{"s", "t"}[i%2], fmt.Sprint("i", i), 256, &running)
	}
	var senders sync.WaitGroup
	for g := range 4 {
		senders.Go(func() {
			for i := g; i < n; i += 4 {
				c := do(fmt.Sprint(i), []string{"s.a", "t.a"}[i/4%2])
				c.Branch = i
				c.Retry.CallTimeout = time.Minute
				w.hub.Send(c)
			}
		})
	}
	senders.Wait()
	select {
	case <-answered:
	case <-time.After(time.Minute):
		t.Errorf("%d calls were not answered: %+v", left.Load(), w.hub.Services(""))
	}
	w.hub.Close()
	running.Wait()
}

func TestFlood(t *testing.T) { flood(t, 50_000) }

// BenchmarkCalls measures a call from Send to deliver, over gRPC in memory.
func BenchmarkCalls(b *testing.B) {
	b.ReportAllocs()
	flood(b, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}
