package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// TestRetriesUnderFire has members come and go and the broker restart while a third of the attempts fail: each message
// is handled once, or dead; with KeepOrder each key in order, by its marks too.
func TestRetriesUnderFire(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		cfg  ConsumerConfig
	}{
		{"claims", ConsumerConfig{}}, {"in order", ConsumerConfig{KeepOrder: true}},
		{"by marks", ConsumerConfig{HighWater: HighWaterSeq}}, {"by marks, in order", ConsumerConfig{HighWater: HighWaterSeq, KeepOrder: true}},
	} {
		t.Run(tc.name, func(t *testing.T) { t.Parallel(); testRetriesUnderFire(t, tc.cfg) })
	}
}

func testRetriesUnderFire(t *testing.T, cfg ConsumerConfig) {
	b, restart := restartable(t)
	topic := b.topic(t, 3)
	cfg.Attempts, cfg.RetryDelays, cfg.CommitInterval = 1, delays(), 20*time.Millisecond
	cfg.MaxBackoff, cfg.SessionTimeout = 100*time.Millisecond, 2*time.Second // a lost farewell costs three of these
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(7, 7))
	h := func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		mu.Lock()
		fails := rnd.IntN(3) == 0
		mu.Unlock()
		if err := insertHandled(ctx, tx, m); err != nil || !fails {
			return err
		}
		return errors.New("bad luck")
	}
	const n, keys = 160, 17
	one := b.consumer(t, cfg, h, topic)
	start(t, one)
	publish := func(from, to int) {
		msgs := numbered(topic, from, to-from, keys)
		for i := range msgs {
			msgs[i].Headers = map[string]string{HeaderSeq: fmt.Sprint(10 * (from + i))}
		}
		eventually(t, "published", func() bool { msgs = failed(msgs, b.pub.Publish(t.Context(), msgs)); return len(msgs) == 0 })
	}
	publish(0, 40)
	two := b.consumer(t, cfg, h, topic)
	stop := start(t, two)
	eventually(t, "two share", func() bool { return len(two.Partitions()) > 0 })
	publish(40, 80)
	restart()
	publish(80, 120)
	stop()
	publish(120, n)
	dead := func() int { return len(b.deadLetters(t, topic)) }
	eventually(t, "all handled or dead", func() bool {
		return one.Stats().Lag == 0 && len(one.Partitions()) == 9 && b.handled(t)+dead() >= n
	})
	if one.Stats().Retried+two.Stats().Retried == 0 {
		t.Error("nothing was retried")
	}
	handled := b.handled(t)
	b.handledOnce(t, handled)
	if cfg.KeepOrder {
		b.inOrder(t, handled)
		if p := b.parked(t); p != 0 {
			t.Errorf("%d are parked at the end", p)
		}
	}
	t.Logf("%d handled, %d dead letters; %+v; %+v", handled, dead(), one.Stats(), two.Stats())
	b.requeueUntilHandled(t, topic, n)
}

// deadLetters are the ids of a topic's.
func (b *bench) deadLetters(t *testing.T, topic string) map[string]bool {
	t.Helper()
	d := b.dead(t, topic)
	ids := map[string]bool{}
	for page := ""; ; {
		letters, next, err := d.List(t.Context(), DeadLetterQuery{Limit: 50, Page: page, DeadLetterFilter: DeadLetterFilter{Requeued: true}})
		if err != nil {
			t.Log(err) // a broker that restarts
			return nil
		}
		for _, l := range letters {
			ids[l.Message.ID] = true
		}
		if page = next; next == "" {
			return ids
		}
	}
}

func (b *bench) dead(t *testing.T, topic string) *DeadLetters {
	t.Helper()
	d, err := NewDeadLetters(b.brokers, topic, &DeadLettersConfig{Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// requeueUntilHandled requeues what is dead until all n messages are handled, each once.
func (b *bench) requeueUntilHandled(t *testing.T, topic string, n int) {
	t.Helper()
	d := b.dead(t, topic)
	eventually(t, "all handled after being requeued", func() bool {
		if _, err := d.Requeue(t.Context(), RequeueRequest{All: true, Offset: -1, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
		return b.handled(t) >= n
	})
	b.handledOnce(t, n)
}
