package inbox

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// TestBufferHoldsBytes has messages of nearly 1 MiB, and a handler that hangs: what is fetched stays below the bound and
// one batch of each partition, and so does the heap. When the handler goes on, all come through.
func TestBufferHoldsBytes(t *testing.T) {
	b := inProcess(t)
	const n, size, partitions, bound = 30, 1_000_000, 2, 4 << 20
	topic := b.topic(t, partitions)
	for i := range n {
		m := outbox.Message{ID: fmt.Sprint("id-", i), Topic: topic, Key: fmt.Sprint("key-", i), Body: bytes.Repeat([]byte("x"), size)}
		if err := errors.Join(b.pub.Publish(t.Context(), []outbox.Message{m})...); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	release := make(chan struct{})
	c := b.consumer(t, ConsumerConfig{Concurrency: 3, BufferBytes: bound}, func(ctx context.Context, _ *sql.Tx, _ outbox.Message) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, topic)
	start(t, c)
	full := func() bool {
		return !slices.ContainsFunc(c.Partitions(), func(p PartitionStats) bool { return p.BufferedBytes < bound/partitions })
	}
	eventually(t, "both buffers are full", func() bool { return len(c.Partitions()) == partitions && full() })
	most := int64(bound + partitions*(size+4096))
	for range 50 { // looks at what only a fetch beyond the bound would change
		if s := c.Stats(); s.BufferedBytes > most || s.Buffered > most/size {
			t.Fatalf("%d bytes buffered, of %d messages; the bound is %d, and a batch of each partition", s.BufferedBytes, s.Buffered, bound)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
	runtime.GC()
	runtime.ReadMemStats(&now)
	if grown := int64(now.HeapAlloc) - int64(before.HeapAlloc); grown > 4*bound {
		t.Errorf("the heap has grown by %d bytes for a bound of %d", grown, bound)
	}
	if s := c.Stats(); s.Lag != n || s.Handled != 0 {
		t.Errorf("%+v: want a lag of all %d", s, n)
	}
	close(release)
	eventually(t, "all handled, and nothing buffered", func() bool {
		s := c.Stats()
		return s.Handled == n && s.Buffered == 0 && s.BufferedBytes == 0 && s.Lag == 0
	})
}

// TestPause: while a topic, a partition or all is paused no handler of it begins, others go on, and the buffer bounds
// what is fetched. It holds over a rebalance.
func TestPause(t *testing.T) {
	b := inProcess(t)
	one, two := b.topic(t, 2), b.topic(t, 1)
	var begun atomic.Int64
	c := b.consumer(t, ConsumerConfig{Buffer: 10}, func(ctx context.Context, tx *sql.Tx, m outbox.Message) error {
		if m.Topic == one {
			begun.Add(1)
		}
		return nil
	}, one, two)
	c.Pause(one) // before it runs
	start(t, c)
	numberedIn := func(topic string, from, n int) {
		b.publish(t, topic, from, n, 50)
	}
	numberedIn(one, 0, 100)
	numberedIn(two, 1000, 20)
	eventually(t, "the other topic is handled", func() bool { return c.Stats().Handled == 20 })
	eventually(t, "lag", func() bool { return c.Stats().Lag == 100 })
	if s := c.Stats(); begun.Load() != 0 || s.Paused != 2 || s.Buffered == 0 {
		t.Errorf("%d handlers of a paused topic began; %+v", begun.Load(), s)
	}
	d := b.consumer(t, ConsumerConfig{}, insertHandled, one, two)
	d.Pause()
	stop := start(t, d) // a rebalance, and another one
	eventually(t, "the other has a partition", func() bool { return d.Stats().Paused > 0 })
	stop()
	eventually(t, "all are back", func() bool { return len(c.Partitions()) == 3 })
	numberedIn(two, 2000, 20)
	eventually(t, "the other topic is handled", func() bool { return c.Stats().Handled == 40 })
	if begun.Load() != 0 {
		t.Errorf("%d handlers began after a rebalance", begun.Load())
	}
	c.PausePartitions(TopicPartition{one, 0})
	c.Resume(one)
	eventually(t, "one partition is handled", func() bool {
		return slices.ContainsFunc(c.Partitions(), func(p PartitionStats) bool {
			return p.TopicPartition == TopicPartition{one, 1} && p.Lag == 0 && p.Committed > 0 && !p.Paused
		})
	})
	if p := c.Partitions()[slices.IndexFunc(c.Partitions(), func(p PartitionStats) bool {
		return p.TopicPartition == TopicPartition{one, 0}
	})]; !p.Paused || p.Lag == 0 || p.Lag != p.HighWatermark {
		t.Errorf("%+v: want it paused", p)
	}
	c.ResumePartitions(TopicPartition{one, 0})
	eventually(t, "all handled", func() bool { return begun.Load() == 100 && c.Stats().Lag == 0 })
}

// TestPauseWinsTheRaceForASlot: a message that waited for a slot when the pause came does not begin after it.
func TestPauseWinsTheRaceForASlot(t *testing.T) {
	c := &Consumer{}
	g := &generation{c: c, slots: make(chan struct{}, 1)}
	tr := newTracker("t", 0, 0)
	for range 200 {
		g.slots <- struct{}{} // taken
		began := make(chan bool, 1)
		ended, end := context.WithCancel(t.Context())
		go func() { began <- g.slot(ended, tr) }()
		c.Pause("t")
		<-g.slots // free again
		select {
		case <-began:
			t.Fatal("a handler began during a pause")
		case <-time.After(100 * time.Microsecond):
		}
		c.Resume("t")
		if !<-began {
			t.Fatal("no handler began after the pause")
		}
		<-g.slots
		end()
	}
}

// TestRebalanceKeepsBuffers: what was fetched of partitions that stay is not fetched again, and nothing is lost.
func TestRebalanceKeepsBuffers(t *testing.T) {
	b := inProcess(t)
	topic := b.topic(t, 4)
	c := b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	c.Pause()
	start(t, c)
	b.publish(t, topic, 0, 200, 13)
	eventually(t, "all fetched", func() bool { return c.Stats().Buffered == 200 })
	d := b.consumer(t, ConsumerConfig{}, insertHandled, topic)
	d.Pause()
	stop := start(t, d)
	eventually(t, "each has two", func() bool { return len(c.Partitions()) == 2 && len(d.Partitions()) == 2 })
	if s := c.Stats(); s.Fetched != 200 || s.Buffered == 0 {
		t.Errorf("%+v: what stayed was fetched again", s)
	}
	kept := c.Stats().Buffered
	eventually(t, "the other has fetched its own", func() bool { return d.Stats().Buffered == 200-kept })
	stop()
	eventually(t, "all are back", func() bool { return c.Stats().Buffered == 200 })
	if s := c.Stats(); s.Fetched != uint64(200+200-kept) {
		t.Errorf("%d fetched; want the 200, and those again that were elsewhere: %d", s.Fetched, 200-kept)
	}
	c.Resume()
	eventually(t, "all handled", func() bool { return c.Stats().Handled == 200 })
	b.check(t, 200)
}

func TestResumeTracker(t *testing.T) {
	recs := []record{{offset: 10, weight: 5}, {offset: 12, weight: 5}, {offset: 14, weight: 5}}
	for _, tc := range []struct {
		name    string
		offset  int64
		keeps   bool
		waiting int
		bytes   int64
	}{
		{"as it was", 10, true, 3, 15},
		{"others have gone on", 13, true, 1, 5},
		{"all was done elsewhere", 20, true, 0, 0},
		{"further than it was fetched", 21, false, 0, 0},
		{"set back", 9, false, 0, 0},
		{"forgotten", -1, false, 0, 0},
	} {
		tr := newTracker("t", 0, 10)
		tr.add(recs, 20)
		if got := tr.resume(tc.offset); got != tc.keeps {
			t.Errorf("%s: keeps %v", tc.name, got)
		} else if got && (len(tr.waiting()) != tc.waiting || tr.bytes != tc.bytes || tr.next != 20 || tr.position != tc.offset) {
			t.Errorf("%s: %d waiting, %d bytes, at %d of %d", tc.name, len(tr.waiting()), tr.bytes, tr.position, tr.next)
		}
	}
	done := newTracker("t", 0, 10)
	items := done.add(recs, 20)
	done.finish(items[1])
	done.finish(items[2])
	if at, _ := done.toCommit(); at != 10 || !done.resume(12) || done.position != 20 || len(done.items) != 0 {
		t.Errorf("what is done stays under way: at %d, %d items", done.position, len(done.items))
	}
	tr := newTracker("t", 0, -1)
	tr.start(3)
	tr.add(recs, 20)
	if !tr.resume(-1) || len(tr.waiting()) != 3 {
		t.Error("what nobody has committed yet is not kept")
	}
}
