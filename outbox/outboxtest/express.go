package outboxtest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/amends-dev/amends/outbox"
)

// testExpress stops the relay of ordinary messages: those of the express lane go
// on, in order, and the others are all there when it goes on.
func testExpress(e *env) {
	e.box = outbox.New(e.d, &outbox.Config{Express: []string{"urgent"}, Logger: quiet()})
	urgent := func(key string, seq int) outbox.Message {
		m := message(key, seq)
		m.Topic = "urgent"
		return m
	}
	open := make(chan struct{})
	e.log.SetHook(func(_ context.Context, msgs []outbox.Message) []error {
		for _, m := range msgs {
			if m.Topic != "urgent" {
				<-open
			}
		}
		return nil
	})
	got := func(topic, key string) (bodies string) {
		for _, m := range e.log.Messages() {
			if m.Topic == topic && m.Key == key {
				bodies += " " + string(m.Body)
			}
		}
		return bodies
	}
	for i := 1; i <= 40; i++ {
		for k := range 10 { // all ordinary partitions
			e.write(message(fmt.Sprint("k", k), i))
		}
	}
	resume := e.resume(open)
	cfg := relayConfig()
	cfg.Lease = patience // longer than the stop
	e.relay(e.log, cfg)
	var want strings.Builder
	for i := 1; i <= 30; i++ {
		e.write(urgent("k1", i), urgent("k2", i))
		fmt.Fprint(&want, " ", i)
	}
	e.until("the express lane", func() bool {
		return got("urgent", "k1") == want.String() && got("urgent", "k2") == want.String()
	})
	e.until("what was published to be deleted", func() bool { return e.depth().Rows <= 400 })
	if rows := e.depth().Rows; rows < 400 {
		e.Errorf("%d rows wait, want the 400 ordinary ones", rows)
	}
	waiting, err := e.operator().Waiting(e.ctx, outbox.WaitingQuery{Key: "k1"})
	e.must(err)
	if len(waiting) != 40 {
		e.Errorf("%d messages of k1 wait, want 40", len(waiting))
	}
	resume()
	e.empty()
	for i := 31; i <= 40; i++ {
		fmt.Fprint(&want, " ", i)
	}
	for k := range 10 {
		if bodies := got("test", fmt.Sprint("k", k)); bodies != want.String() {
			e.Errorf("k%d: published %q", k, bodies)
		}
	}
}

// testExpressDisagrees has writers that do not agree on the express lane.
func testExpressDisagrees(e *env) {
	for i := range 20 {
		e.write(outbox.Message{Topic: "urgent", Key: fmt.Sprint("k", i)})
	}
	var mu sync.Mutex
	var log bytes.Buffer
	e.box = outbox.New(e.d, &outbox.Config{Express: []string{"urgent"}, Logger: quiet()})
	e.write(outbox.Message{Topic: "urgent", Key: "k0"})
	cfg := relayConfig()
	cfg.Logger = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), nil))
	e.relay(e.log, cfg)
	e.empty()
	e.until("the log", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(log.String(), "in the other lane")
	})
	if n := e.log.Len(); n != 21 {
		e.Errorf("%d messages were published, want 21", n)
	}
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
