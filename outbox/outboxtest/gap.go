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
	gapWriters  = 24
	gapKeys     = 6 // shared between the writers
	gapTime     = 3 * time.Second
	gapRollback = 10 // of a hundred
)

const (
	createCounters = `CREATE TABLE outboxtest_counters (k INTEGER PRIMARY KEY, seq BIGINT NOT NULL)`
	insertCounter  = `INSERT INTO outboxtest_counters (k, seq) VALUES (?, 0)`
	bumpCounter    = `UPDATE outboxtest_counters SET seq = seq + 1 WHERE k = ?`
	readCounter    = `SELECT seq FROM outboxtest_counters WHERE k = ?`

	// A message that is written without a transaction, by whom Outbox does not know.
	insertAlone = `INSERT INTO amends_outbox_0 (msg_id, topic, msg_key, body, headers, idem_key, created_at)
VALUES (?, 'test', ?, ?, '', '', 0)`
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
	writers := make([]gapWriter, gapWriters)
	errs := make([]error, gapWriters)
	for w := range writers {
		wg.Go(func() { errs[w] = writers[w].run(e, w) })
	}
	wg.Wait()
	e.must(errors.Join(errs...))
	e.empty()
	r.stop()
	other.stop()
	e.gapResult(writers)
	for _, r := range []*running{r, other} {
		if s := r.Stats(); s.LeasesLost > 0 {
			e.Errorf("a partition was lost in a run without a pause: %+v", s)
		}
	}
	late := r.Stats().LateArrivals + other.Stats().LateArrivals
	e.Logf("%d messages from %d writers, %d times one committed behind the reader: none lost, none out of order",
		e.log.Len(), gapWriters, late)
}

// gapResult wants each key's messages once, in the order of their commits.
func (e *env) gapResult(writers []gapWriter) {
	e.Helper()
	total := 0
	check := func(key string, n int) {
		e.Helper()
		e.once(key, n)
		total += n
	}
	for k := range gapKeys {
		var n int
		e.must(e.db.QueryRowContext(e.ctx, readCounter, k).Scan(&n))
		check(sharedKey(k), n)
	}
	for w, writer := range writers {
		check(ownKey(w), writer.own)
		check(aloneKey(w), writer.alone)
	}
	if n := e.log.Len(); n != total {
		e.Errorf("%d messages were published, %d were committed", n, total)
	}
}

func sharedKey(k int) string { return fmt.Sprintf("shared-%d", k) }
func ownKey(w int) string    { return fmt.Sprintf("own-%d", w) }
func aloneKey(w int) string  { return fmt.Sprintf("alone-%d", w) }

// gapWriter counts what it committed: own in transactions that do nothing else,
// alone in none. What it wrote for shared keys is in their counters.
type gapWriter struct{ own, alone int }

func (g *gapWriter) run(e *env, w int) error {
	rnd := rand.New(rand.NewPCG(uint64(w), 7))
	for end := time.Now().Add(gapTime); time.Now().Before(end); {
		if err := e.gapOwn(rnd, w, g.own+1); err == nil {
			g.own++
		} else if !errors.Is(err, errRollback) {
			return err
		}
		id := fmt.Sprintf("%s/%d", aloneKey(w), g.alone+1)
		if _, err := e.db.ExecContext(e.ctx, insertAlone, []byte(id), []byte(aloneKey(w)),
			fmt.Append(nil, g.alone+1)); err != nil {
			return err
		}
		g.alone++
		if err := e.gapShared(rnd); err != nil && !errors.Is(err, errRollback) {
			return err
		}
	}
	return nil
}

func (e *env) gapOwn(rnd *rand.Rand, w, seq int) error {
	return e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error {
		if err := e.box.Write(e.ctx, tx, message(ownKey(w), seq)); err != nil {
			return err
		}
		return gapEnd(rnd)
	})
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
		return gapEnd(rnd)
	})
}

// gapEnd is how a transaction ends: soon, late, or not at all.
func gapEnd(rnd *rand.Rand) error {
	switch rnd.IntN(50) {
	case 0, 1, 2, 3:
		time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond) // a slow commit
	case 4:
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond) // a very slow one
	}
	if rnd.IntN(100) < gapRollback {
		return errRollback
	}
	return nil
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
