package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/amends-dev/amends/outbox"
)

func testFullReject(e *env) {
	e.smallBox(outbox.Reject)
	e.is(e.tryWrite(message("k", 11)), outbox.ErrOutboxFull)
	if rows := e.depth().Rows; rows != 10 {
		e.Fatalf("%d rows, want 10", rows)
	}
	e.relay(e.log, relayConfig())
	e.empty()
	e.until("room", func() bool {
		err := e.tryWrite(message("k", 11))
		if err != nil {
			e.is(err, outbox.ErrOutboxFull)
		}
		return err == nil
	})
	e.empty()
	e.once("k", 11)
}

func testFullBlock(e *env) {
	e.smallBox(outbox.Block)
	ctx, cancel := context.WithTimeout(e.ctx, 50*time.Millisecond)
	defer cancel()
	err := e.box.Tx(ctx, e.db, func(*sql.Tx) error { e.Error("the function ran without room"); return nil })
	e.is(err, outbox.ErrOutboxFull)
	e.is(err, context.DeadlineExceeded)

	// In a transaction that is open already nobody waits.
	tx, err := e.db.BeginTx(e.ctx, nil)
	e.must(err)
	e.is(e.box.Write(e.ctx, tx, message("k", 11)), outbox.ErrOutboxFull)
	e.must(tx.Rollback())

	written := make(chan error, 1)
	go func() { written <- e.tryWrite(message("k", 11)) }()
	e.relay(e.log, relayConfig())
	e.must(<-written)
	e.empty()
	e.once("k", 11)
}

func testFullShed(e *env) {
	e.smallBox(outbox.Reject)
	metric := outbox.Message{Topic: "metrics", Key: "m", Body: []byte("1"), Sheddable: true}
	for range 3 {
		e.must(e.tryWrite(metric))
	}
	if got, by := e.box.Shed(), e.box.Stats().Shed["metrics"]; got != 3 || by != 3 {
		e.Errorf("%d messages were shed, %d by topic, want 3", got, by)
	}
	metric.Sheddable = false
	e.is(e.tryWrite(metric), outbox.ErrOutboxFull)
	unmarked := message("k", 11)
	unmarked.Sheddable = true // but its topic does not shed
	e.is(e.tryWrite(unmarked), outbox.ErrOutboxFull)
	if rows := e.depth().Rows; rows != 10 {
		e.Errorf("%d rows, want 10", rows)
	}
}

// countAtOnce sees all partitions at one moment, as outbox.Depth need not.
const countAtOnce = `SELECT (SELECT count(*) FROM amends_outbox_0) + (SELECT count(*) FROM amends_outbox_1)
+ (SELECT count(*) FROM amends_outbox_2) + (SELECT count(*) FROM amends_outbox_3) + (SELECT count(*) FROM amends_outbox_4)
+ (SELECT count(*) FROM amends_outbox_aside)`

// testFullManyWriters blocks many writers on a slow relay: the bound holds, all
// get through, in order.
func testFullManyWriters(e *env) {
	const bound, writers, each = 40, 8, 15
	e.box = outbox.New(e.d, &outbox.Config{MaxRows: bound, Logger: quiet()})
	var most atomic.Int64
	watch, stop := context.WithCancel(e.ctx)
	var wg, watcher sync.WaitGroup
	watcher.Go(func() {
		for watch.Err() == nil {
			var rows int64
			if err := e.db.QueryRowContext(watch, countAtOnce).Scan(&rows); err == nil {
				most.Store(max(most.Load(), rows))
			}
		}
	})
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			for i := 1; i <= each && errs[w] == nil; i++ {
				errs[w] = e.tryWrite(message(fmt.Sprint("w", w), i))
			}
		})
	}
	e.relay(e.log, relayConfig())
	wg.Wait()
	e.must(errors.Join(errs...))
	e.empty()
	stop()
	watcher.Wait()
	for w := range writers {
		e.once(fmt.Sprint("w", w), each)
	}
	if n := most.Load(); n > bound {
		e.Errorf("the outbox held %d rows, the bound is %d", n, bound)
	}
}
