package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// full wants a write to be refused for a reason.
func (e *env) full(reason string, m outbox.Message) {
	e.Helper()
	err := e.tryWrite(m)
	e.is(err, outbox.ErrOutboxFull)
	if !strings.Contains(err.Error(), reason) {
		e.Errorf("%v: want the reason %q", err, reason)
	}
}

// testFullBytes fills an outbox with delayed messages: their weight is bounded
// where they are written and where they wait, and not as dead letters.
func testFullBytes(e *env) {
	e.box = outbox.New(e.d, &outbox.Config{MaxBytes: 20_000, MaxMessage: 2000, Policy: outbox.Reject, Logger: quiet()})
	big := delayed("big", 1, time.Hour)
	big.Body = make([]byte, 1000)
	n := 0
	for ; n < 30 && e.tryWrite(big) == nil; n++ {
	}
	if n < 16 || n > 19 {
		e.Errorf("%d messages of 1,000 bytes and a little found room in 20,000", n)
	}
	e.full("Config.MaxBytes is 20000", big)
	e.relay(e.log, relayConfig())
	e.until("all to be aside", func() bool { return e.depth().Delayed == int64(n) })
	e.full("Config.MaxBytes is 20000", big)
	if s := e.box.Stats(); s.Bytes < 16_000 || s.Bytes > 20_000 || s.Rejected < 2 || s.Rows != int64(n) {
		e.Errorf("stats %+v", s)
	}
	small := message("small", 1)
	e.until("a small one to find room", func() bool { return e.tryWrite(small) == nil })
	_, err := e.operator().Park(e.ctx, "big", why(""))
	e.must(err)
	e.until("room", func() bool { return e.tryWrite(big) == nil })

	err = outbox.New(e.d, &outbox.Config{MaxBytes: 1000, MaxAge: -1, Express: []string{" "}}).Tx(e.ctx, e.db, nil)
	e.is(err, outbox.ErrConfig)
	for _, field := range []string{"MaxBytes", "MaxAge", "Express"} {
		if !strings.Contains(err.Error(), field) {
			e.Errorf("%v: does not name %s", err, field)
		}
	}
}

// testFullAge lets nothing in behind an old message, unless that is delayed.
func testFullAge(e *env) {
	e.box = outbox.New(e.d, &outbox.Config{MaxAge: 100 * time.Millisecond, Policy: outbox.Reject, Logger: quiet()})
	e.write(delayed("k", 1, time.Hour))
	r := e.relay(e.log, relayConfig())
	e.until("it to be aside", func() bool { return e.depth().Delayed == 1 })
	start := time.Now()
	e.until("its age to pass MaxAge, and a measurement to be old", func() bool {
		e.write(message("other", 1)) // finds room, as it is published at once
		e.empty1()
		return time.Since(start) > 400*time.Millisecond
	})
	r.stop()
	e.until("an age", func() bool { return errors.Is(e.tryWrite(message("old", 1)), outbox.ErrOutboxFull) })
	e.full("Config.MaxAge is 100ms", message("other", 2))
	e.relay(e.log, relayConfig())
	e.until("room", func() bool { return e.tryWrite(message("other", 2)) == nil })
}

// empty1 waits until only one row is left.
func (e *env) empty1() {
	e.Helper()
	e.until("one row", func() bool { return e.depth().Rows == 1 })
}

// testFullOneTx fills an outbox from one transaction, message by message: what it
// has written itself is counted once.
func testFullOneTx(e *env) {
	e.box = outbox.New(e.d, &outbox.Config{MaxRows: 40, Policy: outbox.Reject, Logger: quiet()})
	e.must(e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error {
		for i := 1; i <= 40; i++ {
			if err := e.box.Write(e.ctx, tx, message("k", i)); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
		}
		e.is(e.box.Write(e.ctx, tx, message("k", 41)), outbox.ErrOutboxFull)
		return nil
	}))
	if rows := e.depth().Rows; rows != 40 {
		e.Errorf("%d rows, want 40", rows)
	}
}

// stopped are writers at full rate whose outbox nobody relays.
type stopped struct {
	*env
	most    atomic.Int64
	written [stoppedWriters]int // messages of each writer's key
	metrics int                 // sheddable messages that were written or shed
	errs    []error
}

const (
	stoppedWriters = 4
	stoppedBound   = 60
	stoppedErrors  = 20 // that are enough
)

// stop runs the writers until enough writes were refused, or ctx has ended, and
// watches the table. When it is full and all of them are blocked it calls cancel.
func (e *env) stop(ctx context.Context, cancel func(), p outbox.Policy) *stopped {
	e.box = outbox.New(e.d, &outbox.Config{MaxRows: stoppedBound, Policy: p, Logger: quiet(),
		Policies: map[string]outbox.Policy{"metrics": outbox.Shed}})
	s := &stopped{env: e}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range stoppedWriters {
		wg.Go(func() {
			for enough := false; !enough && ctx.Err() == nil; {
				err := e.box.Tx(ctx, e.db, func(tx *sql.Tx) error {
					return e.box.Write(ctx, tx, message(fmt.Sprint("w", w), s.written[w]+1))
				})
				shed := e.tryWriteTo("metrics", outbox.Message{Topic: "metrics", Sheddable: true})
				mu.Lock()
				if err == nil {
					s.written[w]++
				} else {
					s.errs = append(s.errs, err)
				}
				if shed == nil {
					s.metrics++
				}
				enough = len(s.errs) >= stoppedErrors
				mu.Unlock()
			}
		})
	}
	s.watch(&wg, cancel)
	return s
}

// tryWriteTo is tryWrite that does not wait for room on behalf of other topics.
func (e *env) tryWriteTo(topic string, m outbox.Message) error {
	return e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error { return e.box.Write(e.ctx, tx, m) }, topic)
}

// watch looks at the table until the writers are done.
func (s *stopped) watch(wg *sync.WaitGroup, cancel func()) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(5 * time.Millisecond):
		}
		var rows int64
		s.must(s.db.QueryRowContext(s.ctx, countAtOnce).Scan(&rows))
		s.most.Store(max(s.most.Load(), rows))
		if rows == stoppedBound && s.box.Stats().Blocked == stoppedWriters {
			cancel()
		}
	}
	if n := s.most.Load(); n > stoppedBound || n < stoppedBound/2 {
		s.Errorf("the outbox held up to %d rows, the bound is %d", n, stoppedBound)
	}
}

// resumed lets a relay drain the outbox: each writer's messages come in order, and
// of the others all that were not shed.
func (s *stopped) resumed() {
	s.relay(s.log, relayConfig())
	s.empty()
	total := 0
	for w, n := range s.written {
		s.once(fmt.Sprint("w", w), n)
		total += n
	}
	if got, want := s.log.Len(), total+s.metrics-int(s.box.Shed()); got != want {
		s.Errorf("%d messages were published, want %d", got, want)
	}
	if st := s.box.Stats(); st.Shed["metrics"] == 0 || len(st.Shed) != 1 || st.Blocked != 0 {
		s.Errorf("stats %+v", st)
	}
}

func testStoppedReject(e *env) {
	s := e.stop(e.ctx, func() {}, outbox.Reject)
	for _, err := range s.errs {
		e.is(err, outbox.ErrOutboxFull)
	}
	if len(s.errs) == 0 || e.box.Stats().Rejected != uint64(len(s.errs)) {
		e.Errorf("%d writes were refused, stats %+v", len(s.errs), e.box.Stats())
	}
	s.resumed()
}

// testStoppedShed has a default policy that sheds: what is not marked is refused.
func testStoppedShed(e *env) {
	s := e.stop(e.ctx, func() {}, outbox.Shed)
	for _, err := range s.errs {
		e.is(err, outbox.ErrOutboxFull)
	}
	if len(s.errs) == 0 {
		e.Error("no unmarked message was refused")
	}
	s.resumed()
}

// testStoppedBlock blocks writers until their context ends; when the relay runs
// again a blocked one goes on.
func testStoppedBlock(e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	s := e.stop(ctx, cancel, outbox.Block)
	if len(s.errs) == 0 {
		e.Error("no writer was blocked")
	}
	for _, err := range s.errs { // the last of each writer
		if !errors.Is(err, context.Canceled) {
			e.Errorf("%v: want the end of the context", err)
		}
	}
	blocked := make(chan error, 1)
	go func() { blocked <- e.tryWrite(message("w0", s.written[0]+1)) }()
	e.until("it to block", func() bool { return e.box.Stats().Blocked == 1 })
	e.relay(e.log, relayConfig())
	e.must(<-blocked)
	s.written[0]++
	s.resumed()
}
