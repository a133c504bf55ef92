package engine

import (
	"container/heap"
	"time"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// timers holds transactions by the time at which they must be looked at.
type timers struct {
	heap timerHeap
}

type timerHeap []*tx

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].wakeAt.Before(h[j].wakeAt) }

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

func (h *timerHeap) Push(x any) {
	t := x.(*tx)
	*h = append(*h, t)
	t.slot = len(*h)
}

func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.slot = 0
	return t
}

// set wakes t at the given time and at no other; zero means never.
func (ts *timers) set(t *tx, at time.Time) {
	switch {
	case at.IsZero() && t.slot > 0:
		heap.Remove(&ts.heap, t.slot-1)
	case at.IsZero():
	case t.slot > 0:
		t.wakeAt = at
		heap.Fix(&ts.heap, t.slot-1)
	default:
		t.wakeAt = at
		heap.Push(&ts.heap, t)
	}
}

// pop returns a transaction whose time has come, or nil.
func (ts *timers) pop(now time.Time) *tx {
	if len(ts.heap) == 0 || ts.heap[0].wakeAt.After(now) {
		return nil
	}
	return heap.Pop(&ts.heap).(*tx)
}

// next is the time of the first entry; zero when there is none.
func (ts *timers) next() time.Time {
	if len(ts.heap) == 0 {
		return time.Time{}
	}
	return ts.heap[0].wakeAt
}

// expire turns a transaction back whose deadline has passed, or has it ask its
// check.
func (w *worker) expire(t *tx, now time.Time) {
	if d := t.deadline(); d.IsZero() || d.After(now) {
		return
	}
	t.expiry = true
	message := "not decided within " + t.rec.Deadline.Sub(t.rec.CreatedAt).String()
	why := txn.Reason{Code: txn.CodeDeadline, Message: message}
	var ev txn.Event = txn.Abort{Reason: why}
	if m, ok := t.m.(*tccMachine); ok && m.d.Check.Action != "" {
		ev = tcc.Expire{Reason: why}
	}
	if err := w.apply(t, ev, ""); err != nil {
		w.log.Error("amends: deadline could not be applied", "gid", t.rec.GID, "err", err)
	}
}
