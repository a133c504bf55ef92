package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
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
		c: c, gen: kgen, handling: handling, slots: make(chan struct{}, c.cfg.Concurrency), chains: map[chainKey]*chain{},
	}
	for topic, parts := range kgen.Assignments {
		for _, p := range parts {
			g.trackers = append(g.trackers, newTracker(topic, p.ID, p.Offset))
		}
	}
	c.cfg.Logger.Debug("Kafka: partitions assigned", "group", c.group, "generation", kgen.ID, "partitions", len(g.trackers))
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
	items := t.add(records, next)
	known := g.known(ended, items)
	for i, it := range items {
		if i < len(known) && known[i] {
			g.c.duplicates.Add(1)
			t.finish(it)
			continue
		}
		key := chainKey{t: t, key: it.message.Key}
		if key.key == "" {
			key.offset = it.offset + 1
		}
		g.enqueue(ended, key, it)
	}
}

func (g *generation) known(ctx context.Context, items []*item) []bool {
	if g.c.cfg.Done == nil || len(items) == 0 {
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

func (g *generation) enqueue(ended context.Context, key chainKey, it *item) {
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

// process brings a message to its end: handled, known, or a dead letter. False when the generation ended before.
func (g *generation) process(ended context.Context, it *item) bool {
	attempts := 0
	var why error // the handler's last error
	handled := g.persist(ended, it, func() (settled bool, err error) {
		fault, err := g.handle(it)
		if fault {
			attempts++
			why = err
		} else if err == nil {
			why = nil
		}
		return err == nil || attempts >= g.c.cfg.Attempts || errors.Is(why, outbox.ErrPoison), err
	})
	if !handled || why == nil {
		return handled
	}
	return g.persist(ended, it, func() (bool, error) {
		err := g.bury(it, attempts, why)
		return err == nil, err
	})
}

// persist calls try, in a slot and with growing pauses, until it is settled. False when the generation ended before.
func (g *generation) persist(ended context.Context, it *item, try func() (settled bool, err error)) bool {
	for pause := g.pacer(); ; {
		select {
		case g.slots <- struct{}{}:
		case <-ended.Done():
			return false
		}
		if ended.Err() != nil { // both were ready
			<-g.slots
			return false
		}
		settled, err := try()
		<-g.slots
		if err != nil {
			g.c.failures.Add(1)
			g.c.cfg.Logger.Warn("inbox: message not handled", "group", g.c.group, "topic", it.message.Topic,
				"id", it.message.ID, "partition", it.tracker.partition, "offset", it.offset, "error", err)
		}
		if settled {
			return true
		}
		if !pause.wait(ended) {
			return false
		}
	}
}

// handle runs the handler with the claim. fault tells that an error is the message's own, as far as one can see: a
// commit that a constraint refuses is, too.
func (g *generation) handle(it *item) (fault bool, err error) {
	c := g.c
	ran := false
	first, err := c.inbox.Once(g.handling, c.db, it.message.ID, func(tx *sql.Tx) error {
		ran = true
		return c.call(g.handling, tx, it.message)
	})
	switch {
	case err != nil:
		return ran && g.handling.Err() == nil && !c.inbox.d.Retryable(err) && c.db.PingContext(g.handling) == nil, err
	case first:
		c.handled.Add(1)
	default:
		c.duplicates.Add(1)
	}
	if c.cfg.Done != nil {
		g.mu.Lock()
		g.done = append(g.done, it.message.ID)
		g.mu.Unlock()
	}
	return false, nil
}

// call runs the handler; a panic becomes an error.
func (c *Consumer) call(ctx context.Context, tx *sql.Tx, m outbox.Message) (err error) {
	ctx, end := c.spanOf(ctx, m)
	defer func() { end(err) }()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("inbox: the handler panicked: %v", p)
		}
	}()
	return c.handler(ctx, tx, m)
}

const (
	deadSuffix   = ".dead"
	maxDeadError = 1024 // bytes of an error kept in a header
)

// bury sends a message to the dead letters, as it came and with headers that tell why. It claims nothing: the same
// message, published again to its own topic, is handled.
func (g *generation) bury(it *item, attempts int, why error) error {
	m := it.message
	m.Headers = make(map[string]string, len(it.message.Headers)+7)
	for name, value := range it.message.Headers {
		m.Headers[name] = value
	}
	text := strings.ToValidUTF8(why.Error(), "?")
	if len(text) > maxDeadError {
		text = strings.ToValidUTF8(text[:maxDeadError], "") + "… (cut)"
	}
	m.Headers["amends-error"] = text
	m.Headers["amends-attempts"] = strconv.Itoa(attempts)
	m.Headers["amends-failed-at"] = time.Now().UTC().Format(time.RFC3339Nano)
	m.Headers["amends-group"] = g.c.group
	m.Headers["amends-topic"] = m.Topic
	m.Headers["amends-partition"] = strconv.Itoa(it.tracker.partition)
	m.Headers["amends-offset"] = strconv.FormatInt(it.offset, 10)
	m.Topic += deadSuffix
	err := g.publishDead(m)
	if errors.Is(err, outbox.ErrPoison) { // with these headers it may be too large; they tell where the rest is
		m.Body, m.Headers["amends-body"] = nil, "left out: "+strconv.Itoa(len(m.Body))+" bytes"
		for name := range it.message.Headers {
			delete(m.Headers, name)
		}
		err = g.publishDead(m)
	}
	if err != nil {
		return fmt.Errorf("inbox: dead letter: %w", err)
	}
	g.c.deadCount.Add(1)
	g.c.cfg.Logger.Error("inbox: message sent to the dead letters", "topic", m.Topic, "id", m.ID, "attempts", attempts,
		"error", why)
	return nil
}

func (g *generation) publishDead(m outbox.Message) error {
	return errors.Join(g.c.dead.Publish(g.handling, []outbox.Message{m})...)
}

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
