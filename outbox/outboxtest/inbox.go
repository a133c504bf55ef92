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

	"github.com/amends-dev/amends/outbox/inbox"
)

// inTx runs fn in a transaction that commits unless fn fails.
func (e *env) inTx(fn func(tx *sql.Tx) error) error {
	tx, err := e.db.BeginTx(e.ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (e *env) claim(key string) (c inbox.Claimed) {
	e.Helper()
	e.must(e.inTx(func(tx *sql.Tx) (err error) {
		c, err = inbox.Claim(e.ctx, tx, e.d, key)
		return err
	}))
	return c
}

func testClaim(e *env) {
	e.is(e.inTx(func(tx *sql.Tx) error {
		c, err := inbox.Claim(e.ctx, tx, e.d, "k")
		e.must(err)
		if !c.First {
			e.Error("the first claim is not first")
		}
		return errRollback
	}), errRollback)
	e.must(e.inTx(func(tx *sql.Tx) error {
		c, err := inbox.Claim(e.ctx, tx, e.d, "k")
		e.must(err)
		if !c.First {
			e.Error("a rollback did not forget the claim")
		}
		if c, err = inbox.Claim(e.ctx, tx, e.d, "k"); err != nil || c.First || c.Reply != nil {
			e.Errorf("again in the same transaction: %+v, %v", c, err)
		}
		return errors.Join(inbox.Record(e.ctx, tx, e.d, "k", []byte("a\x00b")),
			inbox.Record(e.ctx, tx, e.d, "k", []byte("a\x00b"))) // which changes nothing
	}))
	if c := e.claim("k"); c.First || string(c.Reply) != "a\x00b" {
		e.Errorf("the duplicate got %+v", c)
	}
	if c := e.claim("K"); !c.First {
		e.Error("keys that differ in case are one")
	}
	e.is(e.inTx(func(tx *sql.Tx) error { return inbox.Record(e.ctx, tx, e.d, "other", nil) }), inbox.ErrNotClaimed)
}

func testClaimAnyKey(e *env) {
	keys := []string{"\x00", "\xff\xfe", "a", "a ", "a\x00", "ä", "a\u0308", "' OR 1=1 --",
		strings.Repeat("k", inbox.MaxKey), strings.Repeat("k", inbox.MaxKey-1)}
	for _, key := range keys {
		if !e.claim(key).First {
			e.Errorf("key %q is taken for another one", key)
		}
	}
	for _, key := range keys {
		if e.claim(key).First {
			e.Errorf("key %q was forgotten", key)
		}
	}
	for _, key := range []string{"", strings.Repeat("k", inbox.MaxKey+1)} {
		e.is(e.inTx(func(tx *sql.Tx) error {
			_, err := inbox.Claim(e.ctx, tx, e.d, key)
			return err
		}), inbox.ErrKey)
	}
}

// testClaimWaits has a claim meet one that is not committed yet.
func testClaimWaits(e *env) {
	for _, commit := range []bool{true, false} {
		key := fmt.Sprint("waits for ", commit)
		claimed, end := make(chan struct{}), make(chan struct{})
		first := make(chan error, 1)
		go func() {
			first <- e.inTx(func(tx *sql.Tx) error {
				_, err := inbox.Claim(e.ctx, tx, e.d, key)
				close(claimed)
				<-end
				if err == nil && !commit {
					err = errRollback
				}
				return err
			})
		}()
		<-claimed
		second := make(chan inbox.Claimed, 1)
		go func() { second <- e.claim(key) }()
		select {
		case c := <-second:
			e.Errorf("a claim did not wait for the one under way: %+v", c)
		case <-time.After(50 * time.Millisecond):
		}
		close(end)
		if err := <-first; !errors.Is(err, errRollback) {
			e.must(err)
		}
		if c := <-second; c.First == commit {
			e.Errorf("the other's commit is %v, and this claim is first: %v", commit, c.First)
		}
	}
}

// testConcurrentClaims races for keys; some winners roll back.
func testConcurrentClaims(e *env) {
	const racers = 8
	for round := range 10 {
		key := strings.Repeat("r", round+1)
		var first atomic.Int64
		var wg sync.WaitGroup
		errs := make([]error, racers)
		for i := range racers {
			wg.Go(func() {
				won, err := e.race(key, i%3 == 0)
				for e.d.Retryable(err) {
					won, err = e.race(key, i%3 == 0)
				}
				if errors.Is(err, errRollback) {
					return
				}
				errs[i] = err
				if won {
					first.Add(1)
				}
			})
		}
		wg.Wait()
		e.must(errors.Join(errs...))
		if first.Load() != 1 {
			e.Fatalf("round %d: %d racers were first and committed", round, first.Load())
		}
	}
}

// race claims a key. Who is first records a reply and commits, or rolls back;
// who is not has to find the reply.
func (e *env) race(key string, rollback bool) (won bool, err error) {
	err = e.inTx(func(tx *sql.Tx) error {
		c, err := inbox.Claim(e.ctx, tx, e.d, key)
		if err != nil {
			return err
		}
		if !c.First {
			if string(c.Reply) != "done" {
				return fmt.Errorf("the duplicate of %q found the reply %q", key, c.Reply)
			}
			return nil
		}
		if rollback {
			return errRollback
		}
		won = true
		return inbox.Record(e.ctx, tx, e.d, key, []byte("done"))
	})
	return won && err == nil, err
}

func testOnce(e *env) {
	in, other := inbox.New(e.d, "orders"), inbox.New(e.d, "others")
	long := strings.Repeat("l", 2000)
	for _, id := range []string{"1", "2", long, long + "x"} {
		runs := 0
		once := func(in *inbox.Inbox, err error) (bool, error) {
			return in.Once(e.ctx, e.db, id, func(*sql.Tx) error { runs++; return err })
		}
		first, err := once(in, errRollback)
		e.is(err, errRollback)
		if first {
			e.Error("a failed run counts")
		}
		if first, err = once(in, nil); !first || err != nil {
			e.Errorf("the second try: %v, %v", first, err)
		}
		if first, err = once(in, nil); first || err != nil {
			e.Errorf("the duplicate: %v, %v", first, err)
		}
		if first, err = once(other, nil); !first || err != nil {
			e.Errorf("another source: %v, %v", first, err)
		}
		if runs != 3 {
			e.Errorf("the handler ran %d times, want 3", runs)
		}
	}
	_, err := in.Once(e.ctx, e.db, "", func(*sql.Tx) error { return nil })
	e.is(err, inbox.ErrKey)
	ctx, cancel := context.WithCancel(e.ctx)
	_, err = in.Once(ctx, e.db, "cancelled", func(*sql.Tx) error { cancel(); return nil })
	if err == nil {
		e.Error("a commit with a cancelled context reported success")
	}
	if !e.claim("free").First {
		e.Error("the database is not usable after a failed commit")
	}
}

func testPurge(e *env) {
	in := inbox.New(e.d, "purged")
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		key, err := in.Key(id)
		e.must(err)
		e.claim(key)
	}
	e.claim("of the guard") // not a message's: it stays
	purge := func(before time.Time, limit, want int) {
		e.Helper()
		n, err := inbox.Purge(e.ctx, e.db, e.d, before, limit)
		e.must(err)
		if n != want {
			e.Errorf("purged %d claims, want %d", n, want)
		}
	}
	purge(time.Now().Add(-time.Hour), 10, 0)
	purge(time.Now().Add(time.Hour), 3, 3)
	purge(time.Now().Add(time.Hour), 3, 2)
	purge(time.Now().Add(time.Hour), 3, 0)
	if _, err := inbox.Purge(e.ctx, e.db, e.d, time.Now(), 0); err == nil {
		e.Error("a limit of 0 was taken")
	}
}
