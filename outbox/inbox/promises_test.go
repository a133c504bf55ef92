package inbox

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// Kills c6: while the dead letters cannot be written, the message is not passed, and no offset is committed behind it.
func TestDeadLetterOutagePassesNothing(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 3, 3) // three keys
	var tries, open atomic.Int32
	pub := outbox.PublishFunc(func(context.Context, outbox.Message) error {
		tries.Add(1)
		if open.Load() == 0 {
			return errors.New("no broker")
		}
		return nil
	})
	c := b.consumer(t, ConsumerConfig{Attempts: 1, MaxBackoff: 10 * time.Millisecond, DeadLetters: pub, CommitInterval: 5 * time.Millisecond},
		func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
			if m.ID == "id-0" {
				return errors.New("no")
			}
			return insertHandled(ctx, tx, m)
		}, topic)
	start(t, c)
	eventually(t, "it tries on", func() bool { return tries.Load() > 5 && c.Stats().Handled == 2 })
	if n := b.committed(t, topic, 1); n != 0 || c.Stats().Dead != 0 {
		t.Errorf("offset %d committed, %d dead: the message is nowhere", n, c.Stats().Dead)
	}
	open.Store(1)
	eventually(t, "all committed", func() bool { return b.committed(t, topic, 1) == 3 && c.Stats().Dead == 1 })
}

type memDone struct{ marked atomic.Int32 }

func (d *memDone) Done(_ context.Context, _ string, ids []string) ([]bool, error) {
	return make([]bool, len(ids)), nil
}

func (d *memDone) MarkDone(_ context.Context, _ string, ids []string) error {
	d.marked.Add(int32(len(ids)))
	return nil
}

// Kills c2: what has not been handled is not in the done cache, however often the cache is written meanwhile.
func TestNothingIsMarkedBeforeTheWork(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	b.publish(t, topic, 0, 1, 1)
	var done memDone
	var fails atomic.Int32
	fails.Store(20)
	var early atomic.Int32
	c := b.consumer(t, ConsumerConfig{Attempts: 100, MaxBackoff: 10 * time.Millisecond, CommitInterval: time.Millisecond, Done: &done},
		func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
			early.Add(done.marked.Load())
			if fails.Add(-1) >= 0 {
				return errors.New("not yet")
			}
			return insertHandled(ctx, tx, m)
		}, topic)
	start(t, c)
	eventually(t, "marked", func() bool { return c.Stats().Handled == 1 && done.marked.Load() > 0 })
	if early.Load() != 0 || done.marked.Load() != 1 {
		t.Errorf("marked %d times, before the handler was done: %v", done.marked.Load(), early.Load() != 0)
	}
}
