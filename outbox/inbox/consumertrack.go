package inbox

import (
	"context"
	"sync"
)

// tracker keeps the offsets of one partition of a generation: what was fetched, and up to where all is done.
type tracker struct {
	topic     string
	partition int
	freed     chan struct{} // filled when something was done

	mu        sync.Mutex
	items     []*item // fetched, in order of the log, from the first that is not done
	next      int64   // offset to fetch
	position  int64   // all before it is done; -1 when nothing is known yet
	committed int64
}

// item is one message under way.
type item struct {
	record
	tracker *tracker
	after   int64 // the position when this and all before it are done
	done    bool  // guarded by tracker.mu
}

func newTracker(topic string, partition int, offset int64) *tracker {
	t := &tracker{topic: topic, partition: partition, freed: make(chan struct{}, 1)}
	t.start(offset)
	return t
}

// start sets the offset to fetch next; negative: not known.
func (t *tracker) start(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = offset
	if len(t.items) == 0 {
		t.position, t.committed = offset, offset
	}
}

func (t *tracker) fetched() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// room waits until fewer than limit messages are under way; false when ctx ended.
func (t *tracker) room(ctx context.Context, limit int) bool {
	for {
		t.mu.Lock()
		n := len(t.items)
		t.mu.Unlock()
		if n < limit {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-t.freed:
		}
	}
}

// add takes what was fetched; next is the offset behind it, which may lie past the last message.
func (t *tracker) add(records []record, next int64) []*item {
	t.mu.Lock()
	defer t.mu.Unlock()
	items := make([]*item, len(records))
	for i, r := range records {
		items[i] = &item{record: r, tracker: t, after: r.offset + 1}
	}
	t.next = next
	t.items = append(t.items, items...)
	if n := len(t.items); n > 0 {
		t.items[n-1].after = max(t.items[n-1].after, next)
	} else {
		t.position = next
	}
	return items
}

// finish marks an item, and moves the position to the first one that is not done.
func (t *tracker) finish(it *item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	it.done = true
	n := 0
	for n < len(t.items) && t.items[n].done {
		t.position = t.items[n].after
		n++
	}
	t.items = t.items[n:]
	select {
	case t.freed <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// toCommit answers the position, and whether it is new.
func (t *tracker) toCommit() (int64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.position, t.position > t.committed
}

func (t *tracker) wasCommitted(position int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed = max(t.committed, position)
}
