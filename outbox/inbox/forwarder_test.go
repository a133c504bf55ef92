package inbox

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/amends-dev/amends/outbox"
)

// target is a publisher that is away at first, and never takes one of the messages.
type target struct {
	mu     sync.Mutex
	there  bool
	tries  int
	bodies map[string][]string // by key, in the order in which they came
}

const poisoned = "id-9"

func (p *target) Publish(_ context.Context, msgs []outbox.Message) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	m := msgs[0]
	switch {
	case !p.there:
		return []error{errors.New("nobody answers")}
	case m.ID == poisoned:
		return []error{outbox.Poison(errors.New("no such saga"))}
	}
	p.bodies[m.Key] = append(p.bodies[m.Key], string(m.Body))
	return nil
}

func (p *target) tried() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tries
}

// TestForwarder: nothing is committed while the publisher is away; then all comes in the order of its key, but for a
// dead letter; and what is delivered again is published again.
func TestForwarder(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 2)
	const n, keys = 60, 5
	b.publish(t, topic, 0, n, keys)
	to := &target{bodies: map[string][]string{}}
	run := func() (*Consumer, func()) {
		c, err := NewForwarder(b.brokers, b.group, []string{topic}, to, &ConsumerConfig{
			Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, CommitInterval: 5 * time.Millisecond,
			Heartbeat: 50 * time.Millisecond, Logger: silent,
		})
		if err != nil {
			t.Fatal(err)
		}
		return c, start(t, c)
	}
	c, stop := run()
	eventually(t, "it tries on", func() bool { return to.tried() > 50 })
	if at := b.committed(t, topic, 2); at != 0 || c.Stats().Handled != 0 || c.Stats().Dead != 0 {
		t.Errorf("offset %d committed, %+v: nobody has the messages", at, c.Stats())
	}
	to.mu.Lock()
	to.there = true
	to.mu.Unlock()
	forwarded := func(c *Consumer) func() bool {
		return func() bool { s := c.Stats(); return s.Handled == n-1 && s.Dead == 1 && s.Lag == 0 }
	}
	eventually(t, "all forwarded", forwarded(c))
	stop()
	if at := b.committed(t, topic, 2); at != n {
		t.Errorf("offset %d committed, want %d", at, n)
	}
	to.check(t, 1)
	b.setBack(t, topic, 2)
	c, _ = run()
	eventually(t, "all forwarded again", forwarded(c))
	to.check(t, 2)
}

// check wants the messages of each key in order, some times over.
func (p *target) check(t *testing.T, times int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, bodies := range p.bodies {
		want := strings.Fields(strings.Repeat("0 1 2 3 4 5 6 7 8 9 10 11 ", times))
		if key == "key-4" { // whose second one is a dead letter
			want = strings.Fields(strings.Repeat("0 2 3 4 5 6 7 8 9 10 11 ", times))
		}
		if strings.Join(bodies, " ") != strings.Join(want, " ") {
			t.Errorf("%s: published %v, want %v", key, bodies, want)
		}
	}
}

// setBack has the group begin anew.
func (b *bench) setBack(t *testing.T, topic string, partitions int) {
	t.Helper()
	offsets := make([]kafka.OffsetCommit, partitions)
	for p := range offsets {
		offsets[p].Partition = p
	}
	b.client(t, func(c *kafka.Client) error {
		res, err := c.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
			GroupID: b.group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: offsets},
		})
		if err != nil {
			return err
		}
		for _, p := range res.Topics[topic] {
			err = errors.Join(err, p.Error)
		}
		return err
	})
}

func TestWrongForwarder(t *testing.T) {
	_, err := NewForwarder([]string{"nowhere"}, "", nil, nil, &ConsumerConfig{Attempts: 3})
	for _, want := range []string{"NewForwarder: the publisher is nil", "leave them out", "no topics", "no group", `"nowhere" is not host:port`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}
