package outboxtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// delayed is a message that waits for d.
func delayed(key string, seq int, d time.Duration) outbox.Message {
	m := message(key, seq)
	m.NotBefore = time.Now().Add(d)
	return m
}

// inTime is a hook that fails the test for a message that came too early, or that
// shows how the delay is stored.
func (e *env) inTime() func(context.Context, []outbox.Message) []error {
	return func(_ context.Context, msgs []outbox.Message) []error {
		for _, m := range msgs {
			if early := time.Until(m.NotBefore); !m.NotBefore.IsZero() && early > 0 {
				e.Errorf("key %q: message %s was published %v too early", m.Key, m.Body, early)
			}
			if len(m.Headers) != 0 {
				e.Errorf("key %q: message %s has the headers %v", m.Key, m.Body, m.Headers)
			}
		}
		return nil
	}
}

// testDelay has a message wait for an hour: what is behind it of its key waits
// too, under whichever relay, and nothing else does.
func testDelay(e *env) {
	e.log.SetHook(e.inTime())
	e.write(message("k", 0), delayed("k", 1, time.Hour), message("k", 2), delayed("", 1, time.Hour), message("", 2))
	r := e.relay(e.log, relayConfig())
	e.writeSeq("other", 1, 20)
	e.until("what is not delayed", func() bool { return e.log.Len() == 22 && e.depth().Delayed == 3 })
	r.stop()
	e.relay(e.log, relayConfig())
	e.write(message("k", 3), message("other", 21))
	e.until("the next relay", func() bool { return e.log.Len() == 23 && e.depth().Delayed == 4 && e.depth().Rows == 4 })
	if d := e.depth(); d.Oldest != 0 || d.Dead != 0 {
		e.Errorf("depth %+v: want no age", d)
	}
	if s, err := e.operator().Status(e.ctx); err != nil || s.Rows != 4 || s.Delayed != 4 || s.Oldest != 0 || s.Blocked != 0 {
		e.Errorf("status %+v, %v", s, err)
	}
	op := e.operator()
	waiting, err := op.Waiting(e.ctx, outbox.WaitingQuery{Key: "k"})
	e.must(err)
	if len(waiting) != 3 || !waiting[0].Position.Aside || time.Until(waiting[0].Message.NotBefore) < time.Minute ||
		!waiting[1].Message.NotBefore.IsZero() {
		e.Fatalf("waiting: %+v", waiting)
	}
	if key, err := op.KeyAt(e.ctx, waiting[0].Position); err != nil || key != "k" {
		e.Errorf("key at %v: %q, %v", waiting[0].Position, key, err)
	}
	if act, err := op.Skip(e.ctx, waiting[0].Position, why("")); err != nil || act.Messages != 1 {
		e.Errorf("skipped: %+v, %v", act, err)
	}
	e.until("what was behind it", func() bool { return e.published("k") == "0 2 3" })
	dead, err := op.DeadLetters(e.ctx, outbox.DeadQuery{})
	e.must(err)
	if len(dead) != 1 || string(dead[0].Message.Body) != "1" || dead[0].Message.NotBefore.IsZero() ||
		len(dead[0].Message.Headers) != 0 {
		e.Errorf("dead letters: %+v", dead)
	}
	if act, err := op.Park(e.ctx, "k", why("")); err == nil {
		e.Errorf("parked %+v: nothing waits", act)
	}
}

// testDelayOrder mixes messages with and without a delay, while relays come and go.
func testDelayOrder(e *env) {
	e.log.SetHook(e.inTime())
	const keys, each = 8, 30
	rnd := rand.New(rand.NewPCG(1, 2))
	old := e.relay(e.log, relayConfig())
	for i := 1; i <= each; i++ {
		for k := range keys {
			m := message(fmt.Sprint("k", k), i)
			if rnd.IntN(4) == 0 {
				m.NotBefore = time.Now().Add(time.Duration(rnd.IntN(150)) * time.Millisecond)
			}
			e.write(m)
		}
		if i%10 == 0 {
			old.stop()
			old = e.relay(e.log, relayConfig())
		}
	}
	e.empty()
	for k := range keys {
		e.once(fmt.Sprint("k", k), each)
	}
}

// testDelayCrash has a relay die after it has published what was delayed, before
// it could say so: its successor publishes it again, in order.
func testDelayCrash(e *env) {
	for i := 1; i <= 20; i++ {
		e.write(delayed("k", i, 50*time.Millisecond))
	}
	c := &crashed{log: e.log, dead: make(chan struct{}, outbox.Partitions), end: make(chan struct{})}
	old := e.relay(c, relayConfig())
	resume := e.resume(c.end)
	<-c.dead
	e.writeSeq("k", 21, 25)
	e.relay(e.log, relayConfig())
	e.empty()
	if again := e.inOrder("k", 25); again == 0 || again > 20 {
		e.Errorf("%d messages came again, want some of the 20", again)
	}
	resume()
	old.stop()
}

// testDelayFails has a broker that is away when messages are due, and one that
// cannot take one of them for a while: it holds back its own key and no other.
func testDelayFails(e *env) {
	down := func(_ context.Context, msgs []outbox.Message) []error { return failAll(msgs, errDown) }
	e.log.SetHook(down)
	const keys = 60
	for i := 1; i <= 3; i++ {
		for k := range keys {
			e.write(delayed(fmt.Sprint("k", k), i, 10*time.Millisecond))
		}
	}
	e.write(message("f", 1), delayed("f", 2, 10*time.Millisecond)) // behind a row that fails in its table
	r := e.relay(e.log, relayConfig())
	e.until("attempts", func() bool { return r.Stats().Failures > 10 && e.depth().Delayed == 3*keys })
	e.log.SetHook(failing(func(m outbox.Message) error {
		if m.Key == "k7" && string(m.Body) == "2" || m.Key == "f" && string(m.Body) == "1" {
			return errDown
		}
		return nil
	}))
	e.until("the other keys", func() bool { return e.log.Len() == 3*keys-2 })
	blocked := map[string]outbox.Blocked{}
	e.until("both notes", func() bool {
		for _, b := range e.blocked() {
			blocked[b.Key] = b
		}
		return blocked["k7"].Attempts > 0 && blocked["f"].Attempts > 0
	})
	if b := blocked["k7"]; b.Poison || !b.Position.Aside || b.Rows != 2 || b.Attempts < 3 {
		e.Errorf("blocked: %+v", b)
	}
	e.log.SetHook(nil)
	e.empty()
	for k := range keys {
		e.once(fmt.Sprint("k", k), 3)
	}
	e.once("f", 2)
}

// testManyDelayed has more keys wait than a relay would keep in mind.
func testManyDelayed(e *env) {
	cfg := relayConfig()
	cfg.Batch = 5                                                                       // 200 batches are 1,000 rows
	e.box = outbox.New(e.d, &outbox.Config{Express: []string{"test"}, Logger: quiet()}) // in one partition
	const n = 1200
	var msgs []outbox.Message
	for i := range n {
		msgs = append(msgs, delayed(fmt.Sprint("k", i), 1, time.Hour))
	}
	e.write(msgs...)
	e.writeSeq("now", 1, 20)
	e.relay(e.log, cfg)
	e.until("what is not delayed", func() bool { return e.log.Len() == 20 })
	e.until("the others to be aside", func() bool { return e.depth().Delayed == n })
	e.once("now", 20)
}

// testManyHeld has more keys fail than a relay keeps in mind: the others go on, and
// so do these when they are cured.
func testManyHeld(e *env) {
	fails := func(m outbox.Message) error {
		if m.Topic == "bad" {
			return errDown
		}
		return nil
	}
	e.log.SetHook(failing(fails))
	cfg := relayConfig()
	cfg.Batch, cfg.MaxBackoff = 5, time.Minute                                                 // 200 batches are 1,000 rows
	e.box = outbox.New(e.d, &outbox.Config{Express: []string{"test", "bad"}, Logger: quiet()}) // in one partition
	const keys, each = 20, 60
	n := 0
	var msgs []outbox.Message
	for seq := 1; seq <= each; seq++ {
		for i := range keys {
			m := message(fmt.Sprint("k", i), seq)
			m.Topic = "bad"
			msgs = append(msgs, m)
			if i%3 == 0 { // or all of a batch fails, and it is not about single keys
				n++
				msgs = append(msgs, message("good", n))
			}
		}
	}
	e.write(msgs...)
	r := e.relay(e.log, cfg)
	e.until("the other keys", func() bool { return e.log.Len() == n })
	e.until("held rows to go aside", func() bool { return r.Stats().Aside > 0 })
	e.log.SetHook(nil)
	cfg.MaxBackoff = 50 * time.Millisecond
	r.stop() // its holds last for a while
	e.relay(e.log, cfg)
	e.must(e.exec("UPDATE amends_outbox_aside SET due_at = 0"))
	e.empty()
	for i := range keys {
		e.once(fmt.Sprint("k", i), each)
	}
	e.once("good", n)
}
