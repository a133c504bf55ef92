package engine

import "context"

// post hands fn to the worker. It waits while the inbox is full, which is
// back-pressure on whoever asks.
func (w *worker) post(ctx context.Context, fn func()) error { return w.put(ctx, w.inbox, fn) }

// put hands fn to the worker by one of its boxes.
func (w *worker) put(ctx context.Context, box chan<- func(), fn func()) error {
	select {
	case box <- fn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.e.stopped:
		return errStopped
	}
}

// burst runs what else is in the boxes, so that it shares one commit: what is
// under way first. Of starts, one is taken for every few others as long as there
// are others.
func (w *worker) burst() {
	for n := range maxBurst {
		if n%startEvery == startEvery-1 && w.runOne(w.starts) {
			continue
		}
		if !w.runOne(w.inbox) && !w.runOne(w.starts) {
			return
		}
	}
}

// runOne runs the next function in a box, if there is one.
func (w *worker) runOne(box <-chan func()) bool {
	select {
	case fn := <-box:
		fn()
		return true
	default:
		return false
	}
}
