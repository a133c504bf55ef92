package inbox

import "sync"

// messageOverhead is what a buffered message counts beside its bytes.
const messageOverhead = 1 << 10

// tracker keeps the offsets of one partition: what was fetched, and up to where all is done.
type tracker struct {
	topic     string
	partition int
	retry     *retryTopic   // nil for the consumer's own topics
	origin    string        // the topic that messages come from; topic itself without retry
	freed     chan struct{} // filled when something was done

	mu        sync.Mutex
	items     []*item // fetched, in order of the log, from the first that is not done
	bytes     int64   // what these count
	maxItems  int
	maxBytes  int64
	next      int64 // offset to fetch
	position  int64 // all before it is done; -1 when nothing is known yet
	committed int64 // as the brokers know; -1 for nothing
	high      int64 // behind the last message of the partition; -1 when nothing is known yet
}

// item is one message under way.
type item struct {
	record
	tracker *tracker
	after   int64 // the position when this and all before it are done
	done    bool  // guarded by tracker.mu
}

func newTracker(topic string, partition int, offset int64) *tracker {
	return &tracker{
		topic: topic, origin: topic, partition: partition, freed: make(chan struct{}, 1),
		next: offset, position: offset, committed: offset, high: -1,
	}
}

// originPartition is the partition by which it can be paused.
func (t *tracker) originPartition() int {
	if t.retry != nil {
		return everyPartition
	}
	return t.partition
}

// bound sets the limits of what may be under way.
func (t *tracker) bound(items int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.maxItems, t.maxBytes = items, bytes
}

// start sets the offset to fetch next; negative: not known.
func (t *tracker) start(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = offset
	if len(t.items) == 0 {
		t.position = offset
		if t.committed > offset { // the log begins anew, or is read anew
			t.committed = -1
		}
	}
}

// resume takes up a partition that comes back at an offset, with what is under way behind it. False when that is of no
// use: the offset lies elsewhere.
func (t *tracker) resume(offset int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset < 0 && t.committed < 0 && t.next >= 0 {
		return true // nobody has committed anything yet
	}
	if offset < t.position || offset > t.next || t.next < 0 {
		return false
	}
	for len(t.items) > 0 && t.items[0].offset < offset { // others have gone on
		t.drop(t.items[0])
	}
	t.position, t.committed = offset, offset
	t.advance() // or what is done already would stay, and with nothing under way nobody would move on
	return true
}

// waiting are the messages that are not done.
func (t *tracker) waiting() (out []*item) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, it := range t.items {
		if !it.done {
			out = append(out, it)
		}
	}
	return out
}

// drop removes the first item. The caller holds mu.
func (t *tracker) drop(it *item) {
	t.bytes -= it.weight
	t.items[0] = nil // or its message stays until the slice moves
	t.items = t.items[1:]
}

func (t *tracker) fetched() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// room is how many bytes may be fetched; 0 for no room.
func (t *tracker) room() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.items) >= t.maxItems {
		return 0
	}
	return max(0, t.maxBytes-t.bytes)
}

// add takes what was fetched; next is the offset behind it, which may lie past the last message.
func (t *tracker) add(records []record, next int64) []*item {
	t.mu.Lock()
	defer t.mu.Unlock()
	items := make([]*item, len(records))
	for i, r := range records {
		items[i] = &item{record: r, tracker: t, after: r.offset + 1}
		t.bytes += r.weight
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
	t.advance()
	select {
	case t.freed <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// advance moves the position to the first item that is not done. The caller holds mu.
func (t *tracker) advance() {
	for len(t.items) > 0 && t.items[0].done {
		t.position = t.items[0].after
		t.drop(t.items[0])
	}
}

// heard takes note of a high watermark.
func (t *tracker) heard(high int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.high = high
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

func (t *tracker) stats() PartitionStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return PartitionStats{
		TopicPartition: TopicPartition{t.topic, t.partition}, Committed: t.committed, HighWatermark: t.high,
		Lag: max(0, t.high-max(0, t.committed)), Buffered: len(t.items), BufferedBytes: t.bytes,
	}
}
