package dispatch

import (
	"container/heap"
	"fmt"
	"time"

	"github.com/amends-dev/amends/saga/txn"
)

// flight is a call on a stream that has not been answered.
type flight struct {
	call    Call
	expires time.Time
	index   int // in the stream's deadlines; -1: it has timed out, and still holds its credit
}

// deadlines is a heap of flights by the time at which they expire.
type deadlines []*flight

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].expires.Before(d[j].expires) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

// Push is for package heap.
func (d *deadlines) Push(x any) {
	f := x.(*flight)
	f.index = len(*d)
	*d = append(*d, f)
}

// Pop is for package heap.
func (d *deadlines) Pop() any {
	old := *d
	f := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	f.index = -1
	return f
}

// start arms the timeout of a flight.
func (d *deadlines) start(f *flight, now time.Time) {
	f.expires = now.Add(callTimeout(f.call))
	heap.Push(d, f)
}

// stop disarms it.
func (d *deadlines) stop(f *flight) {
	if f.index >= 0 {
		heap.Remove(d, f.index)
	}
}

// expired disarms and returns what has timed out by now.
func (d *deadlines) expired(now time.Time) []*flight {
	var out []*flight
	for d.Len() > 0 && !(*d)[0].expires.After(now) {
		out = append(out, heap.Pop(d).(*flight))
	}
	return out
}

// next returns when the first one expires, if any does.
func (d deadlines) next() (time.Time, bool) {
	if len(d) == 0 {
		return time.Time{}, false
	}
	return d[0].expires, true
}

func callTimeout(c Call) time.Duration { return c.Retry.WithDefaults().CallTimeout }

func timedOut(c Call) Outcome {
	return unknown(c, fmt.Sprintf("no answer in %v", callTimeout(c)))
}

// unknown is the outcome of a call that nobody knows the outcome of.
func unknown(c Call, why string) Outcome {
	return Outcome{GID: c.GID, Replied: txn.Replied{
		Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.Unknown, Message: why,
	}}
}
