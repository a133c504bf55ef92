package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafkaCall is one Publish under way: its messages, sorted into a lane per partition.
type kafkaCall struct {
	p       *KafkaPublisher
	msgs    []Message
	results []error
	topics  map[string]kafkaTopic
	lanes   []*kafkaLane
	stale   atomic.Bool // topics may be out of date
}

// kafkaLane is the part of a call that goes to one partition.
type kafkaLane struct {
	part  *kafkaPartition
	todo  []int // the messages not acknowledged yet, in order, as indexes into the call's
	limit int   // most messages of a batch; halved when the broker finds a batch too large
	held  bool  // part's turn is ours
	own   bool  // what is pending there was made by this call
	done  bool
	last  error // of the latest attempt
	retry backoff
	after time.Time // not to be tried again before
}

// route sorts the messages into lanes. A message that has none gets its result.
func (c *kafkaCall) route(ctx context.Context) {
	var names []string
	for i := range c.msgs {
		if slices.Contains(names, c.msgs[i].Topic) {
			continue
		}
		if err := checkTopic(c.msgs[i].Topic); err != nil {
			c.results[i] = Poison(err)
		} else {
			names = append(names, c.msgs[i].Topic)
		}
	}
	if len(names) == 0 {
		return
	}
	var err error
	c.topics, err = c.p.topics(ctx, names)
	stay := stickiness{sent: c.p.unsure(), keys: map[[2]string]int{}}
	byPart := map[topicPartition]*kafkaLane{}
	for i := range c.msgs {
		if c.results[i] != nil {
			continue
		}
		t := c.topics[c.msgs[i].Topic]
		if e := cmp.Or(err, t.err); e != nil {
			c.results[i] = fmt.Errorf("outbox: kafka: message %q: %w", c.msgs[i].ID, e)
			continue
		}
		tp := topicPartition{c.msgs[i].Topic, stay.partitionOf(&c.msgs[i], t.partitions)}
		lane := byPart[tp]
		if lane == nil {
			lane = &kafkaLane{part: c.p.partition(tp.topic, tp.index), limit: len(c.msgs)}
			byPart[tp] = lane
			c.lanes = append(c.lanes, lane)
		}
		lane.todo = append(lane.todo, i)
	}
}

// stickiness sends a message of unknown fate, and with it what else the call has of its key, where it went before: when
// the topic got more partitions meanwhile, it would go elsewhere, and be in the log twice.
type stickiness struct {
	sent map[[2]string]int // by topic and ID
	keys map[[2]string]int // by topic and key
}

func (s *stickiness) partitionOf(m *Message, partitions []int) int {
	if len(s.sent) == 0 {
		return partitionOf(m, partitions)
	}
	key := [2]string{m.Topic, cmp.Or(m.Key, m.ID)}
	if at, ok := s.sent[[2]string{m.Topic, m.ID}]; ok && at < len(partitions) { // a topic made anew may have fewer
		s.keys[key] = at
	}
	if at, ok := s.keys[key]; ok {
		return at
	}
	return partitionOf(m, partitions)
}

// partitionOf chooses as Java's default partitioner does, by murmur2 of the key. A message without a key is spread by
// its ID, so that a retry goes where the first attempt went.
func partitionOf(m *Message, partitions []int) int {
	return kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(cmp.Or(m.Key, m.ID))}, partitions...)
}

// lock takes the turn of each partition, all calls in the same order, so that two never wait for each other. Lanes
// whose turn did not come before ctx ended fail.
func (c *kafkaCall) lock(ctx context.Context) (unlock func()) {
	slices.SortFunc(c.lanes, func(a, b *kafkaLane) int {
		return cmp.Or(cmp.Compare(a.part.topic, b.part.topic), cmp.Compare(a.part.index, b.part.index))
	})
	for _, lane := range c.lanes {
		select {
		case lane.part.turn <- struct{}{}:
			lane.held = true
		case <-ctx.Done():
			lane.last = errors.New("another Publish is still busy with this partition")
			c.fail(lane, ctx.Err())
		}
	}
	return func() {
		for _, lane := range c.lanes {
			lane.end()
		}
	}
}

// run sends rounds of batches, at most one per partition in each, until every lane is done or ctx ends.
func (c *kafkaCall) run(ctx context.Context) {
	for {
		ready, wait := c.ready()
		if len(ready) == 0 && wait == 0 {
			return
		}
		if len(ready) > 0 && ctx.Err() == nil {
			c.renew(ctx)
			c.round(ctx, ready)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			for _, lane := range c.lanes {
				c.fail(lane, ctx.Err())
			}
		}
	}
}

// ready picks the lanes that may send now; when there is none, wait is the time until the next one may.
func (c *kafkaCall) ready() (lanes []*kafkaLane, wait time.Duration) {
	now := time.Now()
	for _, lane := range c.lanes {
		if lane.done {
			continue
		}
		if d := lane.after.Sub(now); d > 0 {
			if wait == 0 || d < wait {
				wait = d
			}
			continue
		}
		lanes = append(lanes, lane)
	}
	return lanes, wait
}

// end gives the partition's turn to the next call: this one may have to wait long for its other lanes.
func (l *kafkaLane) end() {
	l.done = true
	if l.held {
		l.held = false
		<-l.part.turn
	}
}

// fail ends a lane: its first message gets the error, the later ones are held. The pending batch stays pending.
func (c *kafkaCall) fail(lane *kafkaLane, err error) {
	if lane.done {
		return
	}
	defer lane.end()
	if lane.held {
		lane.part.unsure.Store(lane.part.pending)
	}
	if lane.last != nil && !errors.Is(err, lane.last) {
		err = fmt.Errorf("%w: %w", err, lane.last)
	}
	for n, i := range lane.todo {
		c.results[i] = ErrHeld
		if n == 0 {
			c.results[i] = fmt.Errorf("outbox: kafka: %s/%d: message %q: %w", lane.part.topic, lane.part.index, c.msgs[i].ID, err)
		}
	}
}

// outcome is the answer of Publish.
func (c *kafkaCall) outcome() []error {
	for _, err := range c.results {
		if err != nil {
			return c.results
		}
	}
	return nil
}

// next is the pause before the next try.
func (b *backoff) next() time.Duration {
	d := min(10*time.Millisecond<<min(b.tries, 7), time.Second)
	b.tries++
	return d/2 + rand.N(d/2+1) //nolint:gosec // jitter
}
