package binlog_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/binlog"
)

// BenchmarkLatency measures the time from the return of a commit to the
// publisher's call, at 200 messages a second by writers of which the relay's
// process does not hear: polling with the defaults, and reading the log in both
// modes. An operation is a message; use -benchtime 2000x.
func BenchmarkLatency(b *testing.B) {
	server := startServer(b)
	for _, bc := range []struct {
		name string
		mode binlog.Mode
		poll bool
	}{{"polling", binlog.ModeTable, true}, {"table", binlog.ModeTable, false}, {"log", binlog.ModeLog, false}} {
		b.Run(bc.name, func(b *testing.B) {
			l := &latency{harness: newHarness(b, server, bc.mode), published: map[string]time.Time{}}
			l.run(bc.poll)
			const first = 400 // before that it begins
			l.write(first)
			b.ResetTimer()
			took := l.write(b.N)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
		})
	}
}

// latency notes when messages are published.
type latency struct {
	*harness
	mu        sync.Mutex
	published map[string]time.Time
	written   int
}

// run starts a relay with the defaults.
func (l *latency) run(poll bool) {
	pub := outbox.PublishFunc(func(_ context.Context, m outbox.Message) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.published[m.ID] = time.Now()
		return nil
	})
	if !poll {
		l.relay(pub, func(_ *binlog.Config, c *outbox.RelayConfig) { *c = outbox.RelayConfig{Logger: quiet()} })
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- outbox.NewRelay(l.box, l.db, pub, &outbox.RelayConfig{Logger: quiet()}).Run(ctx) }()
	l.Cleanup(func() { cancel(); l.must(<-done) })
}

// write commits n messages, and answers how long each took, sorted.
func (l *latency) write(n int) []time.Duration {
	writer := outbox.New(outbox.MySQL, &outbox.Config{Logger: quiet(), MaxRows: -1}) // wakes nobody
	committed := map[string]time.Time{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range n {
		<-tick.C
		l.written++
		m := message(fmt.Sprintf("k%d", l.written%20), l.written)
		m.ID = fmt.Sprintf("m%d", l.written)
		l.must(writer.Tx(l.Context(), l.db, func(tx *sql.Tx) error { return writer.Write(l.Context(), tx, m) }))
		committed[m.ID] = time.Now()
	}
	l.until("all messages", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.published) == l.written
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	took := make([]time.Duration, 0, n)
	for id, at := range committed {
		took = append(took, l.published[id].Sub(at))
	}
	slices.Sort(took)
	return took
}
