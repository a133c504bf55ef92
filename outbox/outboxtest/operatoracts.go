package outboxtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/amends-dev/amends/outbox"
)

// testSkip has a key blocked by poison for an hour; the relay goes on with what
// is behind it once it is skipped.
func testSkip(e *env) {
	e.log.SetHook(failing(isPoisoned))
	cfg := relayConfig()
	cfg.Poison, cfg.BlockRetry = outbox.BlockKey, patience*100
	e.writeSeq("bad", 1, 5)
	e.writeSeq("good", 1, 5)
	e.relay(e.log, cfg)
	e.until("the note", func() bool { return len(e.blocked()) == 1 })
	e.until("the other key", func() bool { return e.log.Len() == 6 })
	b := e.blocked()[0]
	if b.Key != "bad" || b.Topic != "test" || !b.Poison || b.Attempts != 1 || !strings.Contains(b.Error, "too large") ||
		b.Rows != 4 || b.ID == "" || !b.RetryAt.After(b.Since) {
		e.Errorf("blocked: %+v", b)
	}
	op := e.operator()
	trial := why("s1")
	trial.ValidateOnly = true
	act, err := op.Skip(e.ctx, b.Position, trial)
	e.must(err)
	if act.Messages != 1 || act.Number != 0 || e.depth().Dead != 0 || len(e.blocked()) != 1 {
		e.Errorf("validated only: %+v, depth %+v", act, e.depth())
	}
	act, err = op.Skip(e.ctx, b.Position, why("s1"))
	e.must(err)
	if act.Messages != 1 || act.Number == 0 || len(act.IDs) != 1 || act.IDs[0] != b.ID || act.Actor != "alice" ||
		act.At.IsZero() {
		e.Errorf("act: %+v", act)
	}
	e.empty()
	if got := e.published("bad"); got != "1 3 4 5" {
		e.Errorf("published %q, want 1 3 4 5", got)
	}
	dead, err := op.DeadLetters(e.ctx, outbox.DeadQuery{Brief: true})
	e.must(err)
	if len(dead) != 1 || dead[0].Attempts != 1 || !strings.Contains(dead[0].Error, "too large") || dead[0].Size != 1 ||
		len(dead[0].Message.Body) != 0 {
		e.Errorf("dead letters: %+v", dead)
	}
	whole, err := op.DeadLetter(e.ctx, dead[0].Number)
	e.must(err)
	if string(whole.Message.Body) != "2" || whole.Message.ID != b.ID {
		e.Errorf("whole: %+v", whole)
	}
	again, err := op.Skip(e.ctx, b.Position, why("s1"))
	if err != nil || again.Number != act.Number {
		e.Errorf("the same request again: %+v, %v", again, err)
	}
	_, err = op.Skip(e.ctx, b.Position, why("s2"))
	e.is(err, outbox.ErrNoMessage)
	if acts, err := op.Acts(e.ctx, 0, 0); err != nil || len(acts) != 1 {
		e.Errorf("a refused act was recorded: %+v, %v", acts, err)
	}
	e.until("no blocked keys", func() bool { return len(e.blocked()) == 0 })
}

// testPark gives up a blocked key; what is written later is published, and the
// parked messages come back in order.
func testPark(e *env) {
	cured := atomic.Bool{}
	e.log.SetHook(failing(func(m outbox.Message) error {
		if m.Key == "bad" && string(m.Body) == "2" && !cured.Load() {
			return errPoison
		}
		return nil
	}))
	cfg := relayConfig()
	cfg.Poison, cfg.BlockRetry, cfg.Batch = outbox.BlockKey, patience*100, 50
	const n = 1200 // chunks of an act, pages of a relay
	var msgs []outbox.Message
	for i := 1; i <= n; i++ {
		msgs = append(msgs, message("bad", i))
	}
	e.write(msgs...)
	e.relay(e.log, cfg)
	e.until("the note", func() bool { return len(e.blocked()) == 1 })
	op := e.operator()
	act, err := op.Park(e.ctx, "bad", why("p1"))
	e.must(err)
	if act.Messages != n-1 || len(act.IDs) != 1000 {
		e.Errorf("parked %d, noted %d ids", act.Messages, len(act.IDs))
	}
	_, err = op.Park(e.ctx, "bad", why("p2"))
	e.is(err, outbox.ErrNoMessage)
	e.write(message("bad", n+1))
	e.empty()
	if got := e.published("bad"); got != fmt.Sprint("1 ", n+1) {
		e.Errorf("published %q", got)
	}
	if d := e.depth().Dead; d != n-1 {
		e.Errorf("%d dead letters", d)
	}
	cured.Store(true)
	act, err = op.Replay(e.ctx, outbox.DeadSelection{Key: "bad"}, why("p3"))
	e.must(err)
	if act.Messages != n-1 || act.More {
		e.Errorf("replayed: %+v", act.Messages)
	}
	e.empty()
	want := []string{"1", fmt.Sprint(n + 1)}
	for i := 2; i <= n; i++ {
		want = append(want, fmt.Sprint(i))
	}
	if e.published("bad") != strings.Join(want, " ") {
		e.Error("the parked messages did not come back in order")
	}
}

func testReplayAndDiscard(e *env) {
	e.log.SetHook(failing(func(outbox.Message) error { return errPoison }))
	for i := range 6 {
		e.write(outbox.Message{Topic: fmt.Sprint("t", i%2), Key: fmt.Sprint("k", i%3), Body: fmt.Append(nil, i)})
	}
	r := e.relay(e.log, relayConfig())
	e.empty()
	r.stop()
	e.log.SetHook(nil)
	op := e.operator()
	_, err := op.Discard(e.ctx, outbox.DeadSelection{}, why(""))
	e.is(err, outbox.ErrAct)
	_, err = op.Discard(e.ctx, outbox.DeadSelection{Numbers: []int64{1}, Topic: "t0"}, why(""))
	e.is(err, outbox.ErrAct)
	_, err = op.Discard(e.ctx, outbox.DeadSelection{Topic: "t0"}, outbox.ActRequest{Actor: "a", Reason: " "})
	e.is(err, outbox.ErrAct)
	dead, err := op.DeadLetters(e.ctx, outbox.DeadQuery{})
	e.must(err)
	_, err = op.Replay(e.ctx, outbox.DeadSelection{Numbers: []int64{dead[0].Number, 1 << 40}}, why(""))
	e.is(err, outbox.ErrNoDeadLetter)
	_, err = op.DeadLetter(e.ctx, 1<<40)
	e.is(err, outbox.ErrNoDeadLetter)
	if d := e.depth(); d.Dead != 6 || d.Rows != 0 {
		e.Fatalf("after refused acts: %+v", d)
	}
	first := slices.IndexFunc(dead, func(d outbox.Dead) bool { return string(d.Message.Body) == "0" })
	one := outbox.DeadSelection{Numbers: []int64{dead[first].Number, dead[first].Number}}
	act, err := op.Replay(e.ctx, one, why("r1"))
	e.must(err)
	if act.Messages != 1 || e.depth().Rows != 1 {
		e.Errorf("one replayed: %+v", act)
	}
	_, err = op.Replay(e.ctx, outbox.DeadSelection{Key: "k0"}, why("r1"))
	e.is(err, outbox.ErrActConflict)
	if act, err = op.Discard(e.ctx, outbox.DeadSelection{Topic: "t1", Key: "k1"}, why("r2")); err != nil || act.Messages != 1 {
		e.Errorf("topic and key: %+v, %v", act, err)
	}
	if act, err = op.Discard(e.ctx, outbox.DeadSelection{Key: "nobody"}, why("r3")); err != nil || act.Messages != 0 {
		e.Errorf("nothing to discard: %+v, %v", act, err)
	}
	e.relay(e.log, relayConfig())
	act, err = op.Replay(e.ctx, outbox.DeadSelection{Topic: "t0"}, why("r4"))
	e.must(err)
	e.empty()
	if d := e.depth().Dead; act.Messages != 2 || d != 2 {
		e.Errorf("%d replayed, %d left", act.Messages, d)
	}
	acts, err := op.Acts(e.ctx, 0, 2)
	e.must(err)
	if len(acts) != 2 || acts[0].RequestID != "r4" || acts[0].Verb != outbox.VerbReplay || acts[1].RequestID != "r3" ||
		acts[0].Reason != "ticket 7" || acts[0].Target != "topic t0" {
		e.Errorf("acts: %+v", acts)
	}
	rest, err := op.Acts(e.ctx, acts[1].Number, 0)
	e.must(err)
	if len(rest) != 2 || rest[1].RequestID != "r1" || rest[0].Target != "topic t1 key k1" {
		e.Errorf("older acts: %+v", rest)
	}
}

// testConcurrentActs has many act on the same things: each message ends up in
// one place, and one request is carried out once.
func testConcurrentActs(e *env) {
	e.writeSeq("k", 1, 40)
	op := e.operator()
	waiting, err := op.Waiting(e.ctx, outbox.WaitingQuery{})
	e.must(err)
	var wg sync.WaitGroup
	var moved atomic.Int64
	tally := func(same bool) func(a outbox.Act, err error) {
		return func(a outbox.Act, err error) {
			switch {
			case err == nil && !same:
				moved.Add(a.Messages)
			case err != nil && !errors.Is(err, outbox.ErrNoMessage) && !errors.Is(err, outbox.ErrNoDeadLetter):
				e.Error(err)
			}
		}
	}
	for range 4 {
		wg.Go(func() {
			for _, w := range waiting[:10] {
				tally(false)(op.Skip(e.ctx, w.Position, why("")))
			}
		})
		wg.Go(func() { tally(true)(op.Park(e.ctx, "k", why("the same"))) })
	}
	wg.Wait()
	acts, err := op.Acts(e.ctx, 0, 0)
	e.must(err)
	for _, a := range acts {
		if a.RequestID == "the same" {
			moved.Add(a.Messages)
		}
	}
	if d := e.depth(); d.Rows != 0 || d.Dead != 40 || moved.Load() != 40 {
		e.Fatalf("depth %+v, and the acts moved %d", d, moved.Load())
	}
	moved.Store(0)
	for range 3 {
		wg.Go(func() { tally(false)(op.Replay(e.ctx, outbox.DeadSelection{Key: "k"}, why(""))) })
		wg.Go(func() { tally(false)(op.Discard(e.ctx, outbox.DeadSelection{Key: "k"}, why(""))) })
	}
	wg.Wait()
	if d := e.depth(); d.Dead != 0 || moved.Load() != 40 || d.Rows != 0 && d.Rows != 40 {
		e.Errorf("depth %+v, and the acts moved %d", d, moved.Load())
	}
}

// testActsBesideRelay skips and parks what a relay is publishing: nothing is
// lost, everything is in the log, among the dead letters, or in both.
func testActsBesideRelay(e *env) {
	const n = 300
	e.relay(e.log, relayConfig())
	op := e.operator()
	var wg sync.WaitGroup
	wg.Go(func() { e.writeSeq("k", 1, n) })
	for range 20 {
		waiting, err := op.Waiting(e.ctx, outbox.WaitingQuery{Key: "k"})
		e.must(err)
		if len(waiting) > 0 {
			if _, err := op.Skip(e.ctx, waiting[0].Position, why("")); err != nil && !errors.Is(err, outbox.ErrNoMessage) {
				e.Error(err)
			}
		}
		if _, err := op.Park(e.ctx, "k", why("")); err != nil && !errors.Is(err, outbox.ErrNoMessage) {
			e.Error(err)
		}
	}
	wg.Wait()
	e.empty()
	found := map[string]bool{}
	for _, body := range strings.Fields(e.published("k") + " " + e.dead("k")) {
		found[body] = true
	}
	if len(found) != n {
		e.Errorf("of %d messages %d are in the log or among the dead letters", n, len(found))
	}
}

// testCrowdedKey blocks a key that has more rows than a relay keeps in mind: the
// other keys go on, and so does this one when it is cured.
func testCrowdedKey(e *env) {
	cured := atomic.Bool{}
	e.log.SetHook(failing(func(m outbox.Message) error {
		if m.Key == "bad" && !cured.Load() {
			return errPoison
		}
		return nil
	}))
	cfg := relayConfig()
	cfg.Poison, cfg.Batch, cfg.Sweep = outbox.BlockKey, 5, 40*cfg.PollMin // 200 batches are 1,000 rows
	const n = 1100
	var msgs []outbox.Message
	for i := 1; i <= n; i++ {
		msgs = append(msgs, message("bad", i))
	}
	e.write(msgs...)
	for i := 1; i <= 50; i++ { // in each partition
		e.write(message("a", i), message("b", i), message("c", i), message("d", i), message("e", i), message("f", i))
	}
	e.relay(e.log, cfg)
	e.until("the other keys", func() bool { return e.log.Len() == 300 })
	e.until("the note", func() bool { return len(e.blocked()) == 1 })
	if b := e.blocked()[0]; b.Key != "bad" || b.Rows != n {
		e.Errorf("blocked: %+v", b)
	}
	e.writeSeq("a", 51, 60)
	e.until("a later message", func() bool { return e.log.Len() == 310 })
	cured.Store(true)
	e.empty()
	e.once("bad", n)
	e.once("a", 60)
}
