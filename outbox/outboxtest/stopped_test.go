package outboxtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxtest"
)

const (
	stopRows     = 2000
	stopBytes    = 1 << 20
	stopFill     = 1700    // there before
	stopBody     = 420     // so that both bounds are near
	stopWriters  = 12      // of orders, each with a key of its own
	stopMetrics  = 4       // writers of what may be shed
	stopHeap     = 8 << 20 // by which the heap may grow while nothing leaves
	stopVariable = "AMENDS_STOPPED"
)

// TestStopped has nobody take messages away for a while, at full write rate: the table and the memory of the process
// stay within their bounds, and each policy does what it says. AMENDS_STOPPED=60s makes it a minute. Not beside other
// tests, as it measures the heap.
func TestStopped(t *testing.T) {
	text := os.Getenv(stopVariable)
	if text == "" {
		return // its short form is StoppedBlock, StoppedReject and StoppedShed of the suite
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", stopVariable, err)
	}
	for name, p := range map[string]outbox.Policy{"block": outbox.Block, "reject": outbox.Reject, "shed": outbox.Shed} {
		t.Run(name, func(t *testing.T) { testStopped(t, p, d) })
	}
}

// halted are writers whose outbox nobody relays.
type halted struct {
	*testing.T
	db      *sql.DB
	box     *outbox.Outbox
	policy  outbox.Policy
	written [stopWriters]atomic.Int64 // orders, by writer
	refused atomic.Int64              // orders
	metrics atomic.Int64              // written, or shed
	most    size
	samples int
}

func testStopped(t *testing.T, p outbox.Policy, d time.Duration) {
	h := &halted{T: t, policy: p, db: openMySQL(t, func(*mysql.Config) {})}
	if err := outbox.Migrate(t.Context(), h.db, outbox.MySQL); err != nil {
		t.Fatal(err)
	}
	h.box = outbox.New(outbox.MySQL, &outbox.Config{MaxRows: stopRows, MaxBytes: stopBytes, MaxMessage: 1000, Policy: p,
		Logger: slog.New(slog.DiscardHandler), Policies: map[string]outbox.Policy{"metrics": outbox.Shed}})
	h.fill()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var g errgroup.Group
	for w := range stopWriters {
		g.Go(func() error { return h.orders(ctx, w) })
	}
	for range stopMetrics {
		g.Go(func() error { return h.measure(ctx) })
	}
	h.stand(d)
	before, backlog := h.total(), int(h.look().rows)
	log := &outboxtest.Log{}
	r := outbox.NewRelay(h.box, h.db, log, nil)
	rctx, stop := context.WithCancel(context.Background())
	var relay errgroup.Group
	relay.Go(func() error { return r.Run(rctx) })
	defer func() {
		stop()
		if err := relay.Wait(); err != nil {
			t.Error(err)
		}
	}()
	resumed := time.Now()
	waitFor(t, "the backlog to be out", func() bool { return log.Len() >= backlog })
	drained := time.Since(resumed)
	waitFor(t, "writers to go on", func() bool { return h.total() >= before+stopWriters })
	end()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "an empty outbox", func() bool { return tableSize(t, h.db).rows == 0 })
	h.check(log.Messages())
	t.Logf("on resume the backlog was out after %v; %d orders and %d metrics in the log, all in order",
		drained.Round(time.Millisecond), h.total()+stopFill, h.metrics.Load()-int64(h.box.Shed()))
}

// fill writes most of what there is room for: near the bound writers get little at a time, each time it is measured.
func (h *halted) fill() {
	h.Helper()
	msgs := make([]outbox.Message, stopFill)
	for i := range msgs {
		msgs[i] = outbox.Message{Topic: "orders", Key: "fill", Body: order(int64(i + 1))}
	}
	err := h.box.Tx(h.Context(), h.db, func(tx *sql.Tx) error { return h.box.Write(h.Context(), tx, msgs...) })
	if err != nil {
		h.Fatal(err)
	}
}

func order(seq int64) []byte { return fmt.Appendf(nil, "%d %s", seq, strings.Repeat("x", stopBody)) }

func (h *halted) total() (n int64) {
	for w := range h.written {
		n += h.written[w].Load()
	}
	return n
}

// orders writes at full rate, whatever it is answered. A transaction that has begun is not cancelled: its commit would
// end in doubt.
func (h *halted) orders(ctx context.Context, w int) error {
	for ctx.Err() == nil {
		seq := h.written[w].Load() + 1
		m := outbox.Message{Topic: "orders", Key: fmt.Sprint("w", w), Body: order(seq)}
		err := h.box.Tx(ctx, h.db, func(tx *sql.Tx) error { return h.box.Write(context.WithoutCancel(ctx), tx, m) })
		switch {
		case err == nil:
			h.written[w].Store(seq)
		case errors.Is(err, outbox.ErrOutboxFull) && h.policy != outbox.Block:
			h.refused.Add(1)
			time.Sleep(time.Millisecond) // or the writers would leave the machine to nobody else
		case ctx.Err() == nil:
			return fmt.Errorf("writer %d: %w", w, err)
		default:
			return nil // whether the last one is there, the log tells
		}
	}
	return nil
}

// measure writes what may be shed at full rate. It never fails.
func (h *halted) measure(ctx context.Context) error {
	for ctx.Err() == nil {
		m := outbox.Message{Topic: "metrics", Body: make([]byte, stopBody), Sheddable: true}
		err := h.box.Tx(context.WithoutCancel(ctx), h.db, func(tx *sql.Tx) error {
			return h.box.Write(context.WithoutCancel(ctx), tx, m)
		}, "metrics")
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		h.metrics.Add(1)
		time.Sleep(time.Millisecond) // as for orders: it cannot know that it was shed
	}
	return nil
}

// stand watches the table and the memory for d, from when the outbox is full.
func (h *halted) stand(d time.Duration) {
	h.Helper()
	waitFor(h.T, "a full outbox", func() bool { return h.box.Shed() > 0 && h.stuck() })
	heap, rows := heapInUse(), h.look()
	began, before := time.Now(), h.total()
	for time.Since(began) < d {
		now := h.look()
		if now.rows < rows.rows {
			h.Errorf("%d rows after %d, and nobody takes any away", now.rows, rows.rows)
		}
		rows = now
		time.Sleep(20 * time.Millisecond) // between two looks
	}
	waitFor(h.T, "all to be stuck still", h.stuck)
	grown := heapInUse() - heap
	if grown > stopHeap {
		h.Errorf("the heap has grown by %d bytes", grown)
	}
	if h.most.rows > stopRows || h.most.bytes > stopBytes {
		h.Errorf("the outbox held %d rows and %d bytes, the bounds are %d and %d", h.most.rows, h.most.bytes, stopRows, stopBytes)
	}
	h.Logf("%v: up to %d rows of %d, %d bytes of %d in %d looks; %d orders written meanwhile, %d refused, %d blocked, %d metrics shed; "+
		"heap %+d bytes, process %s", d, h.most.rows, stopRows, h.most.bytes, stopBytes, h.samples, h.total()-before, h.refused.Load(),
		h.box.Stats().Blocked, h.box.Shed(), grown, residentSize())
}

// stuck tells whether the outbox is about full, and the policy has met every writer of orders.
func (h *halted) stuck() bool {
	if now := h.look(); now.rows < stopRows*3/4 && now.bytes < stopBytes*3/4 {
		return false
	}
	if h.policy == outbox.Block {
		return h.box.Stats().Blocked == stopWriters
	}
	return h.refused.Load() >= stopWriters
}

func (h *halted) look() size {
	now := tableSize(h.T, h.db)
	h.most.rows, h.most.bytes = max(h.most.rows, now.rows), max(h.most.bytes, now.bytes)
	h.samples++
	return now
}

// check wants every order in the log, once and in order, and every metric that was not shed.
func (h *halted) check(msgs []outbox.Message) {
	h.Helper()
	next, metrics := map[string]int64{}, int64(0)
	for _, m := range msgs {
		if m.Topic == "metrics" {
			metrics++
			continue
		}
		var seq int64
		if _, err := fmt.Sscan(string(m.Body[:8]), &seq); err != nil || seq != next[m.Key]+1 {
			h.Fatalf("key %q: message %q came behind %d (%v)", m.Key, m.Body[:8], next[m.Key], err)
		}
		next[m.Key]++
	}
	if next["fill"] != stopFill {
		h.Errorf("%d of the first %d messages are in the log", next["fill"], stopFill)
	}
	for w := range h.written {
		if got, want := next[fmt.Sprint("w", w)], h.written[w].Load(); got != want && got != want+1 {
			h.Errorf("writer %d: %d of %d messages are in the log", w, got, want)
		}
	}
	s := h.box.Stats()
	if want := h.metrics.Load() - int64(h.box.Shed()); metrics != want {
		h.Errorf("%d metrics are in the log, want %d", metrics, want)
	}
	if s.Shed["metrics"] == 0 || len(s.Shed) != 1 || s.Blocked != 0 || int64(s.Rejected) != h.refused.Load() {
		h.Errorf("stats %+v, %d were refused", s, h.refused.Load())
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// residentSize is what the system says of this process, "" where it does not.
func residentSize() string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	rest, _, _ = strings.Cut(rest, "\n")
	return strings.TrimSpace(rest)
}
