package outboxtest

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// parking is a relay that parks keys, and fails what bad names.
func (e *env) parking(bad func(body string) bool) *running {
	e.log.SetHook(failing(func(m outbox.Message) error {
		if m.Key == "bad" && bad(string(m.Body)) {
			return errPoison
		}
		return nil
	}))
	cfg := relayConfig()
	cfg.Poison = outbox.ParkKey
	return e.relay(e.log, cfg)
}

// parkedAre waits until what is parked of the key is this.
func (e *env) parkedAre(bodies string) {
	e.Helper()
	e.until("parked "+bodies, func() bool { return e.dead("bad") == bodies })
}

func (e *env) parkedLetters() []outbox.Dead {
	e.Helper()
	dead, err := e.operator().DeadLetters(e.ctx, outbox.DeadQuery{Key: "bad"})
	e.must(err)
	return dead
}

// testParkKey parks a key, under one relay after another, and replays it bit by
// bit: what is behind stays behind.
func testParkKey(e *env) {
	cured := atomic.Bool{}
	bad := func(body string) bool { return !cured.Load() && body == "2" || body == "4" }
	r := e.parking(bad)
	e.write(message("bad", 1), message("bad", 2), message("good", 1), message("bad", 3), delayed("bad", 4, 50*time.Millisecond))
	e.writeSeq("bad", 5, 6)
	e.parkedAre("2 3 4 5 6")
	r.stop()
	r = e.parking(bad)
	e.write(message("bad", 7), message("good", 2))
	e.parkedAre("2 3 4 5 6 7")
	e.once("good", 2)
	op := e.operator()
	dead := e.parkedLetters()
	if d := e.depth(); d.Rows != 0 || d.Dead != 6 || d.Parked != 6 || d.Delayed != 0 || d.Oldest != 0 {
		e.Errorf("depth %+v", d)
	}
	if !dead[0].Parked || dead[0].Attempts != 1 || !strings.Contains(dead[0].Error, "too large") || dead[0].FailedAt.IsZero() ||
		dead[1].Attempts != 0 || !dead[1].FailedAt.IsZero() {
		e.Errorf("parked: %+v", dead)
	}
	if b := e.blocked(); len(b) != 1 || !b[0].Poison || !b[0].RetryAt.IsZero() || b[0].Rows != 6 || b[0].Key != "bad" {
		e.Errorf("blocked: %+v", b)
	}
	if one, err := op.DeadLetter(e.ctx, dead[2].Number); err != nil || string(one.Message.Body) != "4" || !one.Parked {
		e.Errorf("one of them: %+v, %v", one, err)
	}
	page, err := op.DeadLetters(e.ctx, outbox.DeadQuery{After: dead[3].Number, Limit: 1})
	if err != nil || page[0].Number != dead[4].Number {
		e.Errorf("a page: %+v, %v", page, err)
	}
	e.replayParked(r, dead, func() { cured.Store(true) })
}

// replayParked replays 2 to 7, of which 2 is poison until it is cured, and 4 always.
func (e *env) replayParked(r *running, dead []outbox.Dead, cure func()) {
	op := e.operator()
	_, err := op.Replay(e.ctx, outbox.DeadSelection{Numbers: []int64{dead[0].Number, dead[2].Number}}, why(""))
	e.is(err, outbox.ErrAct)                                                                   // 3 would stay behind
	_, err = op.Replay(e.ctx, outbox.DeadSelection{Numbers: []int64{dead[0].Number}}, why("")) // poison as ever
	e.must(err)
	e.until("the failure", func() bool { return r.Stats().Failures == 1 })
	e.parkedAre("2 3 4 5 6 7")
	cure()
	_, err = op.Replay(e.ctx, outbox.DeadSelection{Numbers: []int64{dead[0].Number, dead[1].Number}}, why(""))
	e.must(err)
	e.until("the first two", func() bool { return e.published("bad") == "1 2 3" })
	e.write(message("bad", 8))
	e.parkedAre("4 5 6 7 8")
	act, err := op.Replay(e.ctx, outbox.DeadSelection{Key: "bad"}, why(""))
	e.must(err)
	if act.Messages != 5 || len(act.IDs) != 5 {
		e.Errorf("replayed: %+v", act)
	}
	e.parkedAre("4 5 6 7 8") // the first of which is poison
	_, err = op.Discard(e.ctx, outbox.DeadSelection{Numbers: []int64{dead[2].Number}}, why(""))
	e.must(err)
	e.parkedAre("5 6 7 8")
	e.must(outbox.Replay(e.ctx, e.db, e.d, e.parkedLetters()[0].Number, e.parkedLetters()[1].Number))
	e.until("the next two", func() bool { return e.published("bad") == "1 2 3 5 6" })
	e.is(outbox.Drop(e.ctx, e.db, e.d, dead[2].Number), outbox.ErrNoDeadLetter)
	_, err = op.Replay(e.ctx, outbox.DeadSelection{Topic: "test"}, why(""))
	e.must(err)
	e.write(message("bad", 9))
	e.until("the rest", func() bool { return e.published("bad") == "1 2 3 5 6 7 8 9" })
}

// testParkedSkip skips what parks its key: the rest goes on by itself.
func testParkedSkip(e *env) {
	e.parking(func(body string) bool { return body == "2" })
	e.writeSeq("bad", 1, 5)
	e.write(message("", 1))
	e.parkedAre("2 3 4 5")
	act, err := e.operator().Skip(e.ctx, e.blocked()[0].Position, why(""))
	e.must(err)
	if act.Messages != 1 {
		e.Errorf("skipped: %+v", act)
	}
	e.empty()
	e.until("the rest", func() bool { return e.published("bad") == "1 3 4 5" })
	dead := e.parkedLetters()
	if len(dead) != 1 || dead[0].Parked || string(dead[0].Message.Body) != "2" || dead[0].Attempts != 1 {
		e.Errorf("dead letters: %+v", dead)
	}
}

// testParkMany parks more of a key than one page, or one act, takes, and the
// messages without a key one by one.
func testParkMany(e *env) {
	cured := atomic.Bool{}
	e.log.SetHook(failing(func(m outbox.Message) error {
		if !cured.Load() && (m.Key == "bad" && string(m.Body) == "1" || m.Topic == "alone") {
			return errPoison
		}
		return nil
	}))
	cfg := relayConfig()
	cfg.Poison = outbox.ParkKey
	const n = 1200
	var msgs []outbox.Message
	for i := 1; i <= n; i++ {
		msgs = append(msgs, message("bad", i))
	}
	for i := range 40 {
		msgs = append(msgs, outbox.Message{Topic: "alone", Body: fmt.Append(nil, i)}, message("", i))
	}
	e.write(msgs...)
	e.relay(e.log, cfg)
	e.until("all to be parked", func() bool { return e.depth().Parked == n+40 })
	if got := e.log.Len(); got != 40 {
		e.Errorf("%d messages were published, want the 40 good ones without a key", got)
	}
	e.write(message("bad", n+1))
	cured.Store(true)
	act, err := e.operator().Replay(e.ctx, outbox.DeadSelection{Topic: "alone"}, why(""))
	e.must(err)
	if act.Messages != 40 {
		e.Errorf("replayed: %+v", act)
	}
	e.until("the last one", func() bool { return e.depth().Parked == n+1 && e.depth().Rows == 0 })
	_, err = e.operator().Replay(e.ctx, outbox.DeadSelection{Key: "bad"}, why(""))
	e.must(err)
	e.empty()
	e.once("bad", n+1)
}

// testReplayBesideRelay replays a key again and again while it is written, and its
// messages keep failing: whatever is published is in order.
func testReplayBesideRelay(e *env) {
	var calls atomic.Int64
	e.parking(func(string) bool { return calls.Add(1)%7 == 0 })
	const n = 100
	written := make(chan struct{})
	go func() {
		defer close(written)
		e.writeSeq("bad", 1, n)
	}()
	replay := func() {
		time.Sleep(5 * time.Millisecond) // SQLite's lock is not fair: without a pause the writer would starve
		if _, err := e.operator().Replay(e.ctx, outbox.DeadSelection{Key: "bad"}, why("")); err != nil {
			e.Fatal(err)
		}
	}
	for done := false; !done; {
		select {
		case <-written:
			done = true
		default:
		}
		replay()
	}
	e.until("all of them", func() bool {
		replay()
		return e.depth().Rows == 0 && e.depth().Dead == 0
	})
	e.once("bad", n)
}
