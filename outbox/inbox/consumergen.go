package inbox

import (
	"context"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// generation is the time between two rebalances, in which this consumer owns the same partitions.
type generation struct {
	c        *Consumer
	gen      *kafka.Generation
	handling context.Context // of handlers: outlives the generation by DrainTimeout
	slots    chan struct{}   // one per running handler
	workers  errgroup.Group  // fetchers and chains
	trackers []*tracker

	mu     sync.Mutex
	chains map[chainKey]*chain
	done   []string // ids for the done cache
}

// chainKey names messages that are handled one after the other: those of one key of a partition.
type chainKey struct {
	t      *tracker
	key    string
	offset int64 // tells messages without a key apart
}

// chain is the queue of a chainKey, served by one goroutine while there is something in it.
type chain struct{ queue []*item }

// generation consumes until ended; then it drains, commits and returns, so that the next generation, here or
// elsewhere, begins where this one stopped.
func (c *Consumer) generation(run, ended context.Context, kgen *kafka.Generation) {
	handling, cancel := context.WithCancel(context.WithoutCancel(run))
	defer cancel()
	g := &generation{
		c: c, gen: kgen, handling: handling, slots: make(chan struct{}, c.concurrency()), chains: map[chainKey]*chain{},
	}
	kept := g.takeOver(kgen)
	c.cfg.Logger.Debug("Kafka: partitions assigned", "group", c.group, "generation", kgen.ID, "partitions", len(g.trackers),
		"messages kept", len(kept))
	for _, it := range kept {
		g.enqueue(ended, it)
	}
	for _, t := range g.trackers {
		g.workers.Go(func() error { return g.fetch(ended, t) })
	}
	var others errgroup.Group
	drained := make(chan struct{})
	others.Go(func() error { return g.commitAlways(drained) })
	others.Go(func() error { return g.limitDrain(ended, drained, cancel) })
	<-ended.Done()
	_ = g.workers.Wait() // workers end without errors: they retry what fails
	close(drained)
	_ = others.Wait() // as above
	g.commit()
}

// takeOver makes a tracker for each partition, or keeps the one of the generation before, and answers what is still to
// be done of those.
func (g *generation) takeOver(kgen *kafka.Generation) (kept []*item) {
	c := g.c
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.trackers
	c.trackers, c.at = map[TopicPartition]*tracker{}, kgen.ID
	for topic, parts := range kgen.Assignments {
		for _, p := range parts {
			tp := TopicPartition{topic, p.ID}
			t := before[tp]
			if t != nil && t.resume(p.Offset) {
				kept = append(kept, t.waiting()...)
			} else {
				t = newTracker(topic, p.ID, p.Offset)
				if t.retry = c.retries.named(topic); t.retry != nil {
					t.origin = t.retry.origin
				}
			}
			c.trackers[tp] = t
			g.trackers = append(g.trackers, t)
		}
	}
	for _, t := range g.trackers {
		t.bound(c.cfg.Buffer, int64(max(1, c.cfg.BufferBytes/len(g.trackers))))
	}
	return kept
}

// limitDrain cancels the handlers that still run a DrainTimeout after the generation's end.
func (g *generation) limitDrain(ended context.Context, drained <-chan struct{}, cancel func()) error {
	<-ended.Done()
	timer := time.NewTimer(g.c.cfg.DrainTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		cancel()
	}
	return nil
}

// dispatch takes what was fetched into the partition's chains. Messages that are known to be done end here.
func (g *generation) dispatch(ended context.Context, t *tracker, records []record, next int64) {
	g.c.fetched.Add(uint64(len(records)))
	items := t.add(records, next)
	known := g.known(ended, items)
	for i, it := range items {
		if i < len(known) && known[i] {
			g.c.duplicates.Add(1)
			t.finish(it)
			continue
		}
		g.enqueue(ended, it)
	}
}

func (g *generation) known(ctx context.Context, items []*item) []bool {
	if g.c.cfg.Done == nil || len(items) == 0 || items[0].tracker.retry != nil { // whose keys' turns the database keeps
		return nil
	}
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.message.ID
	}
	known, err := g.c.cfg.Done.Done(ctx, g.c.cfg.Source, ids)
	if err != nil {
		g.c.cfg.Logger.Debug("inbox: done cache does not answer", "error", err) // the claims know
	}
	return known
}

func (g *generation) enqueue(ended context.Context, it *item) {
	key := chainKey{t: it.tracker, key: it.message.Key}
	if key.key == "" {
		key.offset = it.offset + 1
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if ch := g.chains[key]; ch != nil {
		ch.queue = append(ch.queue, it)
		return
	}
	ch := &chain{queue: []*item{it}}
	g.chains[key] = ch
	g.workers.Go(func() error { g.serve(ended, key, ch); return nil })
}

// serve handles a chain until it is empty or the generation has ended.
func (g *generation) serve(ended context.Context, key chainKey, ch *chain) {
	for {
		g.mu.Lock()
		if len(ch.queue) == 0 {
			delete(g.chains, key)
			g.mu.Unlock()
			return
		}
		it := ch.queue[0]
		ch.queue = ch.queue[1:]
		g.mu.Unlock()
		if !g.process(ended, it) {
			return // the chain stays, so that nothing behind it starts
		}
		key.t.finish(it)
	}
}

func (g *generation) pacer() pacer { return pacer{g.c.cfg.Backoff, g.c.cfg.MaxBackoff} }

// commitAlways commits offsets until all is drained.
func (g *generation) commitAlways(drained <-chan struct{}) error {
	ticker := time.NewTicker(g.c.cfg.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-drained:
			return nil
		case <-ticker.C:
			g.commit()
		}
	}
}

// commit tells the done cache and the brokers how far the generation has come. What it cannot tell is told later, or
// comes again and finds its claim.
func (g *generation) commit() {
	g.mu.Lock()
	done := g.done
	g.done = nil
	g.mu.Unlock()
	if len(done) > 0 {
		if err := g.c.cfg.Done.MarkDone(g.handling, g.c.cfg.Source, done); err != nil {
			g.c.cfg.Logger.Debug("inbox: done cache not written", "error", err)
		}
	}
	offsets := map[string]map[int]int64{}
	positions := map[*tracker]int64{}
	for _, t := range g.trackers {
		if position, isNew := t.toCommit(); isNew {
			if offsets[t.topic] == nil {
				offsets[t.topic] = map[int]int64{}
			}
			offsets[t.topic][t.partition] = position
			positions[t] = position
		}
	}
	if err := g.gen.CommitOffsets(offsets); err != nil {
		g.c.cfg.Logger.Warn("Kafka: offsets not committed, trying again", "group", g.c.group, "error", err)
		return
	}
	for t, position := range positions {
		t.wasCommitted(position)
	}
}
