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

// TestKeepOrderIsSwitched while a message waits in a retry topic: switched on, it is not taken for one that was settled;
// switched off, its key's queue does not wait for it for ever.
func TestKeepOrderIsSwitched(t *testing.T) {
	for name, before := range map[string]bool{"on": false, "off": true} {
		t.Run(name, func(t *testing.T) {
			b := inProcess(t)
			topic := b.topic(t, 1)
			b.publish(t, topic, 0, 1, 1)
			var fail atomic.Bool
			fail.Store(true)
			h := func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
				if fail.Load() {
					return errors.New("not yet")
				}
				return insertHandled(ctx, tx, m)
			}
			cfg := ConsumerConfig{Attempts: 1, RetryDelays: []time.Duration{500 * time.Millisecond}, KeepOrder: before}
			c := b.consumer(t, cfg, h, topic)
			stop := start(t, c)
			eventually(t, "in the retry topic", func() bool { return c.Stats().Retried == 1 })
			c.Pause()
			stop()
			fail.Store(false)
			cfg.KeepOrder = !before
			c = b.consumer(t, cfg, h, topic)
			start(t, c)
			eventually(t, "all done", func() bool { s := c.Stats(); return s.Handled+s.Duplicates+s.Dead > 0 && s.Lag == 0 })
			if b.check(t, 1); b.parked(t) != 0 {
				t.Errorf("%d are parked at the end", b.parked(t))
			}
		})
	}
}

// TestKeepTurnOfWhatIsHandled: a member that was away so long that another one has handled its message takes no place in
// the queue, which nothing would give up again.
func TestKeepTurnOfWhatIsHandled(t *testing.T) {
	b := embedded(t)
	b.brokers, b.group = []string{"127.0.0.1:1"}, "g"
	c := b.consumer(t, ConsumerConfig{RetryDelays: delays(), KeepOrder: true}, insertHandled, "orders")
	it := &item{tracker: newTracker("orders", 0, 0), record: record{message: outbox.Message{ID: "1", Topic: "orders", Key: "k"}}}
	for _, live := range []bool{true, false} {
		if got, err := c.keepTurn(t.Context(), it); got != live || err != nil || b.parked(t) != 1 {
			t.Errorf("live %v, %v, %d parked; want %v and 1", got, err, b.parked(t), live)
		}
		if first, err := c.inbox.Once(t.Context(), c.db, "1", func(*sql.Tx) error { return nil }); first != live || err != nil {
			t.Errorf("first %v, %v: a place in the queue is no claim", first, err)
		}
	}
	it.message.ID = "2"
	if _, err := c.inbox.Once(t.Context(), c.db, "2", func(*sql.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if live, err := c.keepTurn(t.Context(), it); live || err != nil || b.parked(t) != 1 {
		t.Errorf("handled elsewhere: live %v, %v, %d parked", live, err, b.parked(t))
	}
}
