package outboxtest

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// The gap harness: writers that share keys, of which some roll back and some
// take their time between writing a message and committing it. A reader that
// remembers how far it got would miss what commits behind it.
const (
	gapWriters  = 12
	gapKeys     = 6 // shared between the writers
	gapRounds   = 25
	gapRollback = 10 // of a hundred
)

const (
	createCounters = `CREATE TABLE outboxtest_counters (k INTEGER PRIMARY KEY, seq BIGINT NOT NULL)`
	insertCounter  = `INSERT INTO outboxtest_counters (k, seq) VALUES (?, 0)`
	bumpCounter    = `UPDATE outboxtest_counters SET seq = seq + 1 WHERE k = ?`
	readCounter    = `SELECT seq FROM outboxtest_counters WHERE k = ?`
)

var errRollback = errors.New("rolled back on purpose")

// counters makes the rows whose locks stand for the shared keys.
func (e *env) counters(n int) {
	e.Helper()
	_, err := e.db.ExecContext(e.ctx, createCounters)
	e.must(err)
	for k := range n {
		_, err := e.db.ExecContext(e.ctx, insertCounter, k)
		e.must(err)
	}
}

func testGaps(e *env) {
	e.counters(gapKeys)
	cfg := relayConfig()
	cfg.Lease = 20 * time.Second // no writer holds up a delete for longer: nothing comes twice
	r := e.relay(e.log, cfg)
	other := e.relay(e.log, cfg)
	var wg sync.WaitGroup
	errs := make([]error, gapWriters)
	for w := range gapWriters {
		wg.Go(func() { errs[w] = e.gapWriter(w) })
	}
	wg.Wait()
	e.must(errors.Join(errs...))
	e.empty()
	r.stop()
	other.stop()
	for k := range gapKeys {
		var n int
		e.must(e.db.QueryRowContext(e.ctx, readCounter, k).Scan(&n))
		e.once(sharedKey(k), n)
	}
	for w := range gapWriters {
		e.once(ownKey(w), gapRounds)
	}
	if s := r.Stats(); s.LeasesLost > 0 {
		e.Errorf("a partition was lost in a run without a pause: %+v", s)
	}
}

func sharedKey(k int) string { return fmt.Sprintf("shared-%d", k) }
func ownKey(w int) string    { return fmt.Sprintf("own-%d", w) }

// gapWriter commits gapRounds messages of its own key, each in a transaction
// that does nothing else, and among them about as many of the shared ones.
func (e *env) gapWriter(w int) error {
	rnd := rand.New(rand.NewPCG(uint64(w), 7))
	for i := 1; i <= gapRounds; i++ {
		err := e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error { return e.box.Write(e.ctx, tx, message(ownKey(w), i)) })
		if err != nil {
			return err
		}
		if err := e.gapShared(rnd); err != nil && !errors.Is(err, errRollback) {
			return err
		}
	}
	return nil
}

// gapShared locks a shared key by its counter and writes the next message of it.
func (e *env) gapShared(rnd *rand.Rand) error {
	k := rnd.IntN(gapKeys)
	return e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(e.ctx, bumpCounter, k); err != nil {
			return err
		}
		var seq int
		if err := tx.QueryRowContext(e.ctx, readCounter, k).Scan(&seq); err != nil {
			return err
		}
		if err := e.box.Write(e.ctx, tx, message(sharedKey(k), seq)); err != nil {
			return err
		}
		if rnd.IntN(10) == 0 {
			time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond) // a slow commit
		}
		if rnd.IntN(100) < gapRollback {
			return errRollback
		}
		return nil
	})
}

// testManyRelays lets relays come and go while messages are written.
func testManyRelays(e *env) {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r := e.relay(e.log, relayConfig())
				e.until("a takeover", func() bool { return r.Stats().LeasesTaken > 0 })
				r.stop()
			}
		}
	})
	for i := 1; i <= 100; i++ {
		e.write(message("a", i), message("b", i), message("c", i))
	}
	close(stop)
	wg.Wait()
	e.relay(e.log, relayConfig())
	e.empty()
	for _, key := range []string{"a", "b", "c"} {
		e.once(key, 100)
	}
}

// testDrainsOnShutdown ends a relay while its batch is on the way.
func testDrainsOnShutdown(e *env) {
	entered, release := make(chan struct{}, outbox.Partitions), make(chan struct{})
	e.log.SetHook(blockingHook(entered, release))
	e.writeSeq("k", 1, 10)
	cfg := relayConfig()
	cfg.Lease = 10 * time.Second
	r := e.relay(e.log, cfg)
	<-entered
	done := make(chan struct{})
	go func() { defer close(done); r.stop() }()
	close(release)
	<-done
	if rows := e.depth().Rows; rows != 0 {
		e.Fatalf("%d published rows were left in the table", rows)
	}
	e.once("k", 10)
	next := e.relay(e.log, cfg) // must not have to wait for the end of the lease
	start := time.Now()
	e.until("the partitions", func() bool { return next.Stats().LeasesTaken == outbox.Partitions })
	if took := time.Since(start); took > 5*time.Second {
		e.Errorf("the partitions were taken over after %v: they were not given back", took)
	}
}
