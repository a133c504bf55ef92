package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/amends-dev/amends/outbox"
)

var (
	errDown   = errors.New("broker unreachable")
	errPoison = outbox.Poison(errors.New("too large for the broker"))
)

func failAll(msgs []outbox.Message, err error) []error {
	errs := make([]error, len(msgs))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// failing is a hook that fails what fails says, and holds what comes after it.
func failing(fails func(m outbox.Message) error) func(context.Context, []outbox.Message) []error {
	each := outbox.PublishFunc(func(_ context.Context, m outbox.Message) error { return fails(m) })
	return each.Publish
}

// testPublisherFails has a broker that is away for a while: nothing is lost,
// nothing is buried, and the order holds.
func testPublisherFails(e *env) {
	var calls atomic.Int64
	e.log.SetHook(func(_ context.Context, msgs []outbox.Message) []error {
		calls.Add(1)
		return failAll(msgs, errDown)
	})
	r := e.relay(e.log, relayConfig())
	for k := range 20 {
		e.writeSeq(fmt.Sprint("k", k), 1, 10) // more keys than fit into a batch
	}
	e.until("some attempts", func() bool { return calls.Load() > 20 })
	if n := e.log.Len(); n != 0 {
		e.Fatalf("%d messages were acknowledged", n)
	}
	e.log.SetHook(nil)
	e.empty()
	for k := range 20 {
		e.once(fmt.Sprint("k", k), 10)
	}
	if s := r.Stats(); s.Dead != 0 || s.Failures == 0 {
		e.Errorf("stats %+v: want no dead letters, and failures", s)
	}
}

// testPartialAcknowledgement fails every third message at first.
func testPartialAcknowledgement(e *env) {
	var calls atomic.Int64
	e.log.SetHook(failing(func(outbox.Message) error {
		if n := calls.Add(1); n < 900 && n%3 == 0 {
			return errDown
		}
		return nil
	}))
	for i := 1; i <= 120; i++ { // several pages
		e.write(message("a", i), message("b", i), message("c", i), message("d", i), message("", i))
	}
	e.relay(e.log, relayConfig())
	e.empty()
	for _, key := range []string{"a", "b", "c", "d"} {
		e.once(key, 120)
	}
	if n := e.log.Len(); n != 600 {
		e.Errorf("%d messages were published, want 600", n)
	}
}

// testPublisherTimesOut hangs until the relay gives up, some times.
func testPublisherTimesOut(e *env) {
	var hung atomic.Int64
	e.log.SetHook(func(ctx context.Context, msgs []outbox.Message) []error {
		if hung.Add(1) > 2 {
			return nil
		}
		<-ctx.Done()
		return failAll(msgs, ctx.Err())
	})
	e.writeSeq("k", 1, 10)
	r := e.relay(e.log, relayConfig())
	e.empty()
	e.once("k", 10)
	if lost := r.Stats().LeasesLost; lost != 0 {
		e.Errorf("the relay lost %d partitions: it waited for longer than its lease", lost)
	}
}

// testWrongAnswers has a publisher that answers for another number of messages.
func testWrongAnswers(e *env) {
	var calls atomic.Int64
	wrong := publisherFunc(func(ctx context.Context, msgs []outbox.Message) []error {
		if calls.Add(1) <= 3 {
			return make([]error, len(msgs)+1)
		}
		return e.log.Publish(ctx, msgs)
	})
	e.writeSeq("k", 1, 10)
	e.relay(wrong, relayConfig())
	e.empty()
	e.once("k", 10)
}

type publisherFunc func(ctx context.Context, msgs []outbox.Message) []error

func (f publisherFunc) Publish(ctx context.Context, msgs []outbox.Message) []error {
	return f(ctx, msgs)
}

func isPoisoned(m outbox.Message) error {
	if m.Key == "bad" && string(m.Body) == "2" {
		return errPoison
	}
	return nil
}

func testPoisonDeadLetter(e *env) {
	e.log.SetHook(failing(isPoisoned))
	e.writeSeq("bad", 1, 5)
	e.writeSeq("good", 1, 5)
	r := e.relay(e.log, relayConfig())
	e.empty()
	e.once("good", 5)
	var got []string
	for _, m := range e.log.Messages() {
		if m.Key == "bad" {
			got = append(got, string(m.Body))
		}
	}
	if strings.Join(got, " ") != "1 3 4 5" {
		e.Errorf("of the poisoned key %v was published, want 1 3 4 5", got)
	}
	if s := r.Stats(); s.Dead != 1 {
		e.Errorf("stats %+v: want 1 dead letter", s)
	}
	dead, err := outbox.DeadLetters(e.ctx, e.db, e.d, outbox.DeadQuery{})
	e.must(err)
	if len(dead) != 1 || dead[0].Message.Key != "bad" || string(dead[0].Message.Body) != "2" || dead[0].Attempts != 1 ||
		dead[0].FailedAt.IsZero() || !strings.Contains(dead[0].Error, "too large") {
		e.Errorf("dead letters: %+v", dead)
	}
}

func testPoisonBlocksKey(e *env) {
	cured := atomic.Bool{}
	e.log.SetHook(failing(func(m outbox.Message) error {
		if cured.Load() {
			return nil
		}
		return isPoisoned(m)
	}))
	cfg := relayConfig()
	cfg.Poison = outbox.BlockKey
	cfg.Sweep = 20 * cfg.PollMin // so that sweeps meet the blocked key
	e.writeSeq("bad", 1, 70)     // more than a page
	r := e.relay(e.log, cfg)
	e.writeSeq("good", 1, 200)
	e.until("the other key", func() bool { return e.log.Len() == 201 })
	e.until("another attempt", func() bool { return r.Stats().Failures > 1 })
	e.once("good", 200)
	e.until("only the 69 of the blocked key to be left", func() bool { return e.depth().Rows == 69 })
	cured.Store(true)
	e.empty()
	e.once("bad", 70)
}

func testDeadLetters(e *env) {
	e.log.SetHook(failing(func(m outbox.Message) error {
		if m.Topic == "bad" {
			return fmt.Errorf("%w: %s", errPoison, strings.Repeat("x", 10_000))
		}
		return nil
	}))
	for i := range 4 {
		e.write(outbox.Message{Topic: "bad", Key: fmt.Sprint("k", i), Body: []byte{byte(i)}})
	}
	e.relay(e.log, relayConfig())
	e.empty()
	list := func(q outbox.DeadQuery) []outbox.Dead {
		dead, err := outbox.DeadLetters(e.ctx, e.db, e.d, q)
		e.must(err)
		return dead
	}
	all := list(outbox.DeadQuery{})
	if len(all) != 4 || e.depth().Dead != 4 {
		e.Fatalf("%d dead letters, want 4", len(all))
	}
	if n := len(all[0].Error); n > 4<<10 || !strings.Contains(all[0].Error, "bytes in all") {
		e.Errorf("the error has %d bytes and is not visibly cut", n)
	}
	if got := list(outbox.DeadQuery{Key: "k2"}); len(got) != 1 || got[0].Message.Body[0] != 2 {
		e.Errorf("by key: %+v", got)
	}
	if got := list(outbox.DeadQuery{After: all[2].Number, Topic: "bad", Limit: 5}); len(got) != 1 {
		e.Errorf("the last page has %d", len(got))
	}
	e.is(outbox.Drop(e.ctx, e.db, e.d, all[0].Number, 1<<40), outbox.ErrNoDeadLetter)
	e.is(outbox.Replay(e.ctx, e.db, e.d, all[0].Number, 1<<40), outbox.ErrNoDeadLetter)
	if n := e.depth().Dead; n != 4 {
		e.Fatalf("%d dead letters after refused calls, want 4", n)
	}
	e.must(outbox.Drop(e.ctx, e.db, e.d, all[0].Number))
	e.log.SetHook(nil)
	e.must(outbox.Replay(e.ctx, e.db, e.d, all[1].Number, all[2].Number))
	e.is(outbox.Replay(e.ctx, e.db, e.d, all[1].Number), outbox.ErrNoDeadLetter)
	e.until("what was replayed", func() bool { return e.log.Len() == 2 })
	e.empty()
	if n := e.depth().Dead; n != 1 {
		e.Errorf("%d dead letters are left, want 1", n)
	}
}
