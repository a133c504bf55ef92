package outbox

import "slices"

// lanes is a set of partitions.
type lanes uint64

const allLanes = lanes(1)<<Partitions - 1

func (l lanes) has(part int) bool { return l>>part&1 == 1 }

// waker is a partition of a relay in this process, which waits for messages.
type waker struct {
	part int
	c    chan struct{}
}

// Wake makes the relays of this process look at the tables now. It never blocks.
func (o *Outbox) Wake() { o.wake(allLanes) }

// wake makes them look at some tables: who writes to one leaves the others alone.
func (o *Outbox) wake(written lanes) {
	if written == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.wakes {
		if !written.has(w.part) {
			continue
		}
		select {
		case w.c <- struct{}{}:
		default: // a wake-up is pending already
		}
	}
}

// subscribe makes a channel that Wake fills; the func gives it back.
func (o *Outbox) subscribe(part int) (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wakes = append(o.wakes, waker{part, c})
	return c, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.wakes = slices.DeleteFunc(o.wakes, func(w waker) bool { return w.c == c })
	}
}
