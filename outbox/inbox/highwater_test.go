package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/amends-dev/amends/outbox"
)

// TestHighWaterConsumer: with numbers in a header, or by offsets, each message is handled once, in order, and there is
// one row per key; what has no key or no number goes by its claim; a second message of one number becomes a dead letter.
func TestHighWaterConsumer(t *testing.T) { onBenches(t, testHighWaterConsumer) }

func testHighWaterConsumer(t *testing.T, b *bench) {
	for name, mode := range map[string]HighWater{"header": HighWaterSeq, "offset": HighWaterOffset} {
		t.Run(name, func(t *testing.T) {
			if _, err := b.db.ExecContext(t.Context(), `DELETE FROM handled`); err != nil {
				t.Fatal(err)
			}
			topic := b.topic(t, 2)
			msgs := numbered(topic, 0, 80, 7)
			for i := range msgs {
				msgs[i].Headers = map[string]string{HeaderSeq: fmt.Sprint(i * 3)}
			}
			odd := []outbox.Message{
				{ID: "keyless", Topic: topic, Headers: map[string]string{HeaderSeq: "1"}}, {ID: "unnumbered", Topic: topic, Key: "key-x"},
				{ID: "nonsense", Topic: topic, Key: "key-y", Headers: map[string]string{HeaderSeq: "1e3"}},
				{ID: "lowest", Topic: topic, Key: "key-z", Headers: map[string]string{HeaderSeq: "-9223372036854775808"}},
			}
			publish := func(m []outbox.Message) {
				if err := errors.Join(b.pub.Publish(t.Context(), m)...); err != nil {
					t.Fatal(err)
				}
			}
			var others atomic.Int64
			c := b.consumer(t, ConsumerConfig{HighWater: mode, Source: topic}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
				if len(m.Body) == 0 {
					others.Add(1)
					return nil
				}
				return insertHandled(ctx, tx, m)
			}, topic)
			start(t, c)
			publish(msgs)
			publish(odd)
			eventually(t, "all handled", func() bool { return c.Stats().Handled == 84 })
			b.check(t, 80)
			if n := b.count(t, "amends_inbox_marks", topic); n < 7 || n > 10 {
				t.Errorf("%d marks, want one for each of 7 keys, or 10 by offset", n)
			}
			if mode == HighWaterOffset {
				return // what is published again is another message to it
			}
			publish(msgs)
			publish(odd)
			eventually(t, "all seen again", func() bool { return c.Stats().Duplicates == 84 })
			publish([]outbox.Message{{ID: "other", Topic: topic, Key: msgs[79].Key, Headers: msgs[79].Headers}})
			eventually(t, "a dead letter", func() bool { return c.Stats().Dead == 1 })
			if b.check(t, 80); others.Load() != 4 {
				t.Errorf("%d without a place were handled, want 4", others.Load())
			}
			if n := b.count(t, "amends_inbox", topic); n != 4 {
				t.Errorf("%d claims, want 4", n)
			}
		})
	}
}

// count is how many rows of a source a table has.
func (b *bench) count(t *testing.T, table, source string) (n int) {
	t.Helper()
	column := map[string]string{"amends_inbox": "claim_key", "amends_inbox_marks": "mark_key"}[table]
	err := b.db.QueryRowContext(t.Context(), `SELECT count(*) FROM `+table+` WHERE substr(`+column+`, 1, ?) = ?`, len(source), []byte(source)).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHighWaterRedelivery: offsets were not committed when the consumer crashed, a message was given up before that:
// by either number, nothing is handled twice, and what was given up neither lost nor repeated.
func TestHighWaterRedelivery(t *testing.T) {
	for name, mode := range map[string]HighWater{"header": HighWaterSeq, "offset": HighWaterOffset} {
		t.Run(name, func(t *testing.T) {
			b := inProcess(t)
			topic := b.topic(t, 1)
			msgs := numbered(topic, 0, 60, 4)
			for i := range msgs {
				msgs[i].Headers = map[string]string{HeaderSeq: fmt.Sprint(i)}
			}
			if err := errors.Join(b.pub.Publish(t.Context(), msgs)...); err != nil {
				t.Fatal(err)
			}
			var heal atomic.Bool
			h := func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
				if (m.ID == "id-20" || m.ID == "id-24") && !heal.Load() {
					return errors.New("not yet")
				}
				return insertHandled(ctx, tx, m)
			}
			cfg := ConsumerConfig{HighWater: mode, Attempts: 1}
			for range 2 { // the second one finds all of it again
				c := b.consumer(t, cfg, h, topic)
				g := &generation{c: c, handling: t.Context(), slots: make(chan struct{}, 1), chains: map[chainKey]*chain{}}
				ended, end := context.WithCancel(t.Context())
				tr := newTracker(topic, 0, 0)
				tr.bound(1000, 1<<20)
				g.workers.Go(func() error { return g.fetch(ended, tr) })
				eventually(t, "the log is done", func() bool { p, _ := tr.toCommit(); return p == 60 })
				end()
				if err := g.workers.Wait(); err != nil {
					t.Fatal(err)
				}
			}
			if n := b.handled(t); n != 58 {
				t.Errorf("%d handled, want all but 2", n)
			}
			heal.Store(true)
			c := b.consumer(t, cfg, h, topic)
			start(t, c)
			d := b.dead(t, topic)
			res, err := d.Requeue(t.Context(), RequeueRequest{All: true, Offset: -1, Reason: "mended"})
			if err != nil || res.Requeued < 2 {
				t.Errorf("requeued %+v, %v", res, err)
			}
			eventually(t, "all handled, and the log is done", func() bool { return b.handled(t) == 60 && c.Stats().Lag == 0 && c.Stats().Fetched >= 62 })
			b.handledOnce(t, 60)
		})
	}
}

// TestHighWaterOfOtherGroups: what one group gave up and had requeued is a duplicate to another one that has handled it
// by its mark.
func TestHighWaterOfOtherGroups(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 1)
	msgs := numbered(topic, 0, 20, 2)
	for i := range msgs {
		msgs[i].Headers = map[string]string{HeaderSeq: fmt.Sprint(i)}
	}
	if err := errors.Join(b.pub.Publish(t.Context(), msgs)...); err != nil {
		t.Fatal(err)
	}
	one := b.consumer(t, ConsumerConfig{HighWater: HighWaterSeq}, insertHandled, topic)
	start(t, one)
	b.group += "-other"
	var heal atomic.Bool
	var mended atomic.Int64
	other := b.consumer(t, ConsumerConfig{HighWater: HighWaterSeq, Attempts: 1}, func(context.Context, *sql.Tx, outbox.Message) error {
		if !heal.Load() {
			return errors.New("not yet")
		}
		mended.Add(1)
		return nil
	}, topic)
	start(t, other)
	eventually(t, "handled by one, given up by the other", func() bool { return one.Stats().Handled == 20 && other.Stats().Dead == 20 })
	heal.Store(true)
	if res, err := b.dead(t, topic).Requeue(t.Context(), RequeueRequest{All: true, Offset: -1, Reason: "mended"}); err != nil || res.Requeued != 20 {
		t.Fatalf("%+v, %v", res, err)
	}
	eventually(t, "known by one, handled by the other", func() bool { return one.Stats().Duplicates == 20 && other.Stats().Handled == 20 })
	if b.check(t, 20); mended.Load() != 20 {
		t.Errorf("the other handled %d, want 20", mended.Load())
	}
}
