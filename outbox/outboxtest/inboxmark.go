package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/inbox"
)

// above handles a place, and answers whether it was the first to.
func (e *env) above(in *inbox.Inbox, key string, seq int64, id string) bool {
	e.Helper()
	ran := false
	first, err := in.OnceAbove(e.ctx, e.db, inbox.Place{Key: key, Seq: seq, ID: id}, func(*sql.Tx) error { ran = true; return nil })
	e.must(err)
	if ran != first {
		e.Errorf("%s at %d: first %v, ran %v", key, seq, first, ran)
	}
	return first
}

// testMarks is one sequence of messages for the high-water mark, with gaps, duplicates and failures.
func testMarks(e *env) {
	in, other := inbox.New(e.d, "orders"), inbox.New(e.d, "others")
	long := strings.Repeat("l", 2000)
	for _, key := range []string{"k", "K", "k ", "a\x00b", "\xff", long, long + "x"} {
		for _, step := range []struct {
			seq   int64
			first bool
		}{{-5, true}, {-5, false}, {-6, false}, {3, true}, {1, false}, {3, false}, {4, true}, {math.MaxInt64, true}, {math.MaxInt64, false}} {
			if got := e.above(in, key, step.seq, ""); got != step.first {
				e.Fatalf("key %.5q at %d: first %v, want %v", key, step.seq, got, step.first)
			}
		}
	}
	if !e.above(other, "k", 1, "") {
		e.Error("two sources share a mark")
	}
	_, err := in.OnceAbove(e.ctx, e.db, inbox.Place{Key: "r", Seq: 1}, func(*sql.Tx) error { return errRollback })
	e.is(err, errRollback)
	if !e.above(in, "r", 1, "") {
		e.Error("a rollback did not forget the mark of a new key")
	}
	_, err = in.OnceAbove(e.ctx, e.db, inbox.Place{Key: "r", Seq: 5}, func(*sql.Tx) error { return errRollback })
	e.is(err, errRollback)
	if !e.above(in, "r", 2, "") || e.above(in, "r", 2, "") {
		e.Error("a rollback did not take the mark back")
	}
	ctx, cancel := context.WithCancel(e.ctx)
	_, err = in.OnceAbove(ctx, e.db, inbox.Place{Key: "r", Seq: 9}, func(*sql.Tx) error { cancel(); return nil })
	if err == nil || !e.above(in, "r", 9, "") {
		e.Errorf("a commit that failed (%v) left its mark", err)
	}
	for _, at := range []inbox.Place{{Key: "", Seq: 1}, {Key: "k", Seq: math.MinInt64}} {
		_, err := in.OnceAbove(e.ctx, e.db, at, func(*sql.Tx) error { return nil })
		e.is(err, inbox.ErrKey)
	}
}

// testMarksTwoOfOne: the highest number again with another id is no duplicate.
func testMarksTwoOfOne(e *env) {
	in := inbox.New(e.d, "orders")
	longID := strings.Repeat("i", 300)
	for i, id := range []string{"a", longID} {
		key := fmt.Sprint("k", i)
		if !e.above(in, key, 7, id) || e.above(in, key, 7, id) || e.above(in, key, 6, "older") || e.above(in, key, 7, "") {
			e.Errorf("id %.5q: its duplicates are not known", id)
		}
		_, err := in.OnceAbove(e.ctx, e.db, inbox.Place{Key: key, Seq: 7, ID: id + "x"}, func(*sql.Tx) error { return nil })
		e.is(err, inbox.ErrSequence)
		e.is(err, outbox.ErrPoison)
		if e.above(in, key, 7, id) || !e.above(in, key, 8, id+"x") {
			e.Error("what was refused has changed the mark")
		}
	}
}

// testSetAside gives messages up, which are then known by their claims, whatever happens to their key.
func testSetAside(e *env) {
	in := inbox.New(e.d, "orders")
	aside := func(seq int64, want bool) {
		e.Helper()
		got, err := in.SetAside(e.ctx, e.db, inbox.Place{Key: "k", Seq: seq, ID: fmt.Sprint("id-", seq)})
		e.must(err)
		if got != want {
			e.Fatalf("%d set aside: %v, want %v", seq, got, want)
		}
	}
	once := func(seq int64, want bool) {
		e.Helper()
		first, err := in.Once(e.ctx, e.db, fmt.Sprint("id-", seq), func(*sql.Tx) error { return nil })
		e.must(err)
		if first != want {
			e.Fatalf("the claim of %d: first %v, want %v", seq, first, want)
		}
	}
	at := func(seq int64) bool { return e.above(in, "k", seq, fmt.Sprint("id-", seq)) }
	aside(5, true) // of a new key
	aside(5, true) // again: the crash was behind it
	if !at(6) || at(5) || at(6) {
		e.Error("the key did not go on without what was set aside")
	}
	once(5, true) // at its retry
	once(5, false)
	aside(6, false) // handled
	aside(8, true)
	if !at(8) { // it came again before its retry
		e.Error("what was set aside is not handled where it stands")
	}
	once(8, false) // and its retry knows
	aside(9, true)
	aside(10, true) // so 9 is settled
	if at(9) || !at(11) || at(10) {
		e.Error("what was set aside before another one is handled where it stands")
	}
	aside(9, false)
	once(9, true)
	once(10, true)
	aside(12, true)
	once(12, true) // at its retry
	if at(12) {
		e.Error("what was handled at its retry is handled where it stands")
	}
	_, err := in.SetAside(e.ctx, e.db, inbox.Place{Key: "k", Seq: 20})
	e.is(err, inbox.ErrKey)
}

// testConcurrentMarks races over keys; some winners roll back. Each number has an effect at most once, and the highest
// has one.
func testConcurrentMarks(e *env) {
	const racers, rounds, keys = 8, 12, 3
	in := inbox.New(e.d, "orders")
	var effects [rounds + 1][keys]atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, racers)
	for i := range racers {
		wg.Go(func() {
			for seq := int64(1); seq <= rounds; seq++ {
				for k := range keys {
					for try := 0; ; try++ {
						first, err := in.OnceAbove(e.ctx, e.db, inbox.Place{Key: fmt.Sprint("k", k), Seq: seq}, func(*sql.Tx) error {
							if (i+try)%3 == 0 {
								return errRollback
							}
							return nil
						})
						if e.d.Retryable(err) || errors.Is(err, errRollback) {
							continue
						}
						if errs[i] = err; err != nil {
							return
						}
						if first {
							effects[seq][k].Add(1)
						}
						break
					}
				}
			}
		})
	}
	wg.Wait()
	e.must(errors.Join(errs...))
	for seq := 1; seq <= rounds; seq++ {
		for k := range keys {
			if n := effects[seq][k].Load(); n > 1 || n == 0 && seq == rounds {
				e.Errorf("key %d at %d: %d effects", k, seq, n)
			}
		}
	}
}

// testMarkWaits has a place meet the same one, not committed yet: it waits, and is first only after a rollback.
func testMarkWaits(e *env) {
	in := inbox.New(e.d, "orders")
	for seq, rollback := range map[int64]bool{1: true, 2: false} {
		key := fmt.Sprint("k", seq)
		began, end := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := in.OnceAbove(e.ctx, e.db, inbox.Place{Key: key, Seq: seq}, func(*sql.Tx) error {
				close(began)
				<-end
				if rollback {
					return errRollback
				}
				return nil
			})
			done <- err
		}()
		<-began
		second := make(chan bool, 1)
		go func() { second <- e.above(in, key, seq, "") }()
		select {
		case first := <-second:
			e.Errorf("it did not wait for the one under way: first %v", first)
		case <-time.After(50 * time.Millisecond):
		}
		close(end)
		if err := <-done; !errors.Is(err, errRollback) {
			e.must(err)
		}
		if first := <-second; first != rollback {
			e.Errorf("the other rolled back: %v; this one is first: %v", rollback, first)
		}
	}
}

func testPurgeMarks(e *env) {
	in := inbox.New(e.d, "purged")
	for i := range 5 {
		e.above(in, fmt.Sprint("k", i), 1, "")
	}
	for _, step := range []struct {
		before      time.Duration
		limit, want int
	}{{-time.Hour, 10, 0}, {time.Hour, 3, 3}, {time.Hour, 3, 2}, {time.Hour, 3, 0}} {
		n, err := inbox.PurgeMarks(e.ctx, e.db, e.d, time.Now().Add(step.before), step.limit)
		e.must(err)
		if n != step.want {
			e.Errorf("purged %d marks, want %d", n, step.want)
		}
	}
	if n, err := inbox.PurgeParked(e.ctx, e.db, e.d, time.Now(), 5); n != 0 || err != nil {
		e.Errorf("purged %d parked messages of none, %v", n, err)
	}
	if _, err := inbox.PurgeMarks(e.ctx, e.db, e.d, time.Now(), 0); err == nil {
		e.Error("a limit of 0 was taken")
	}
}
