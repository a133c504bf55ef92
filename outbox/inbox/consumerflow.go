package inbox

import (
	"cmp"
	"slices"
	"sync"
)

// TopicPartition names a partition of a topic.
type TopicPartition struct {
	Topic     string
	Partition int
}

// everyPartition is the Partition of a TopicPartition that stands for a topic, everyTopic the Topic of all.
const (
	everyPartition = -1
	everyTopic     = ""
)

// flow is what the application has paused.
type flow struct {
	mu      sync.Mutex
	paused  map[TopicPartition]bool
	changed chan struct{} // closed at the next change
}

func (f *flow) set(paused bool, what []TopicPartition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused == nil {
		f.paused = map[TopicPartition]bool{}
	}
	for _, tp := range what {
		switch {
		case paused:
			f.paused[tp] = true
		case tp.Topic == everyTopic:
			clear(f.paused)
		default:
			delete(f.paused, tp)
		}
	}
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// state tells whether a partition is paused, and what is closed when that may have changed.
func (f *flow) state(topic string, partition int) (paused bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.paused[TopicPartition{topic, partition}] || f.paused[TopicPartition{topic, everyPartition}] ||
		f.paused[TopicPartition{everyTopic, everyPartition}], f.changed
}

// Pause stops topics, or all where none is named, and their retry topics: from now on no handler begins, until Resume.
// Handlers that have begun go on. What is buffered stays there, and once the buffer is full nothing is fetched. The
// consumer stays in its group and keeps its partitions. A pause holds for this Consumer, also before Run and over
// rebalances, and not for other members of the group. Safe for concurrent use.
func (c *Consumer) Pause(topics ...string) { c.flow.set(true, named(topics)) }

// Resume ends what Pause of the same topics began; with none named, every pause, also of partitions.
func (c *Consumer) Resume(topics ...string) { c.flow.set(false, named(topics)) }

// PausePartitions is Pause for partitions. Retry topics are paused by their topic only.
func (c *Consumer) PausePartitions(parts ...TopicPartition) { c.flow.set(true, parts) }

// ResumePartitions ends what PausePartitions of the same partitions began.
func (c *Consumer) ResumePartitions(parts ...TopicPartition) { c.flow.set(false, parts) }

func named(topics []string) []TopicPartition {
	if len(topics) == 0 {
		return []TopicPartition{{everyTopic, everyPartition}}
	}
	out := make([]TopicPartition, len(topics))
	for i, t := range topics {
		out[i] = TopicPartition{t, everyPartition}
	}
	return out
}

// ConsumerStats counts since the consumer was made, and says what it holds now.
type ConsumerStats struct {
	Fetched    uint64 // messages that were fetched, again after a rebalance too
	Handled    uint64 // messages whose handler's transaction committed
	Duplicates uint64 // messages that were handled before, by claim, by high-water mark or by the done cache
	Retried    uint64 // messages sent to a retry topic after they failed
	Parked     uint64 // messages sent to a retry topic behind another one of their key
	Dead       uint64 // messages sent to the dead letters
	Failures   uint64 // failed attempts of all kinds

	Buffered      int64 // messages fetched and not done, now
	BufferedBytes int64 // what they count against BufferBytes, now
	Paused        int   // partitions that this consumer has and that are paused, now
	Lag           int64 // messages that the group has not passed, of this consumer's partitions, now (PartitionStats.Lag)
}

// PartitionStats is what a consumer knows of a partition that it has.
type PartitionStats struct {
	TopicPartition
	Committed     int64 // the offset where the group goes on, as last committed; -1 before the first commit
	HighWatermark int64 // the offset behind the last message, as last heard of: every 5 s while nothing is fetched; -1: not yet
	Lag           int64 // HighWatermark minus Committed: offsets that the group has not passed
	Buffered      int   // messages fetched and not done
	BufferedBytes int64 // what they count against ConsumerConfig.BufferBytes
	Paused        bool
}

// Stats answers the counts so far. Fit for being polled.
func (c *Consumer) Stats() ConsumerStats {
	s := ConsumerStats{
		Fetched: c.fetched.Load(), Handled: c.handled.Load(), Duplicates: c.duplicates.Load(), Retried: c.retried.Load(),
		Parked: c.parked.Load(), Dead: c.deadCount.Load(), Failures: c.failures.Load(),
	}
	for _, p := range c.Partitions() {
		s.Buffered += int64(p.Buffered)
		s.BufferedBytes += p.BufferedBytes
		s.Lag += p.Lag
		if p.Paused {
			s.Paused++
		}
	}
	return s
}

// Partitions answers what is known of the partitions that this consumer has, retry topics' too, sorted by topic and
// partition; between two rebalances those that it had. Nil before the first, and after Run.
func (c *Consumer) Partitions() []PartitionStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []PartitionStats
	for _, t := range c.trackers {
		p := t.stats()
		p.Paused, _ = c.flow.state(t.origin, t.originPartition())
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b PartitionStats) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return out
}
