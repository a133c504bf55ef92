// Package outboxtest is the suite that every dialect of packages outbox and
// inbox passes, with a log and keys in memory instead of Kafka and Redis.
//
//	func TestSQLite(t *testing.T) {
//		outboxtest.Run(t, func(t *testing.T) (*sql.DB, *outbox.Dialect) {
//			db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "app.db")))
//			…
//			return db, outbox.SQLite
//		})
//	}
package outboxtest

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// Open makes an empty database for one test and closes it when the test ends.
type Open func(t *testing.T) (*sql.DB, *outbox.Dialect)

// Run runs the suite, each test on a database of its own. only names tests of it;
// none means all.
func Run(t *testing.T, open Open, only ...string) {
	tests := []struct {
		name string
		fn   func(*env)
	}{
		{"Migrate", testMigrate},
		{"CommittedInOrder", testCommittedInOrder},
		{"RolledBackNever", testRolledBackNever},
		{"WriteMany", testWriteMany},
		{"AnyBytes", testAnyBytes},
		{"IllegalMessages", testIllegalMessages},
		{"TxEnds", testTxEnds},
		{"Gaps", testGaps},
		{"CrashBeforeDelete", testCrashBeforeDelete},
		{"CrashBeforeDeleteWithKeys", testCrashBeforeDeleteWithKeys},
		{"PausedOwner", testPausedOwner},
		{"ManyRelays", testManyRelays},
		{"DrainsOnShutdown", testDrainsOnShutdown},
		{"PublisherFails", testPublisherFails},
		{"PartialAcknowledgement", testPartialAcknowledgement},
		{"PublisherTimesOut", testPublisherTimesOut},
		{"WrongAnswers", testWrongAnswers},
		{"PoisonDeadLetter", testPoisonDeadLetter},
		{"PoisonBlocksKey", testPoisonBlocksKey},
		{"DeadLetters", testDeadLetters},
		{"Status", testStatus},
		{"Waiting", testWaiting},
		{"Skip", testSkip},
		{"Park", testPark},
		{"ReplayAndDiscard", testReplayAndDiscard},
		{"ConcurrentActs", testConcurrentActs},
		{"ActsBesideRelay", testActsBesideRelay},
		{"ActRollsBack", testActRollsBack},
		{"CrowdedKey", testCrowdedKey},
		{"Delay", testDelay},
		{"DelayOrder", testDelayOrder},
		{"DelayCrash", testDelayCrash},
		{"DelayFails", testDelayFails},
		{"ManyDelayed", testManyDelayed},
		{"ManyHeld", testManyHeld},
		{"ParkKey", testParkKey},
		{"ParkedSkip", testParkedSkip},
		{"ParkMany", testParkMany},
		{"ReplayBesideRelay", testReplayBesideRelay},
		{"Express", testExpress},
		{"ExpressDisagrees", testExpressDisagrees},
		{"Identity", testIdentity},
		{"IdempotencyKeys", testIdempotencyKeys},
		{"KeysDown", testKeysDown},
		{"FullReject", testFullReject},
		{"FullBlock", testFullBlock},
		{"FullShed", testFullShed},
		{"FullManyWriters", testFullManyWriters},
		{"FullBytes", testFullBytes},
		{"FullAge", testFullAge},
		{"FullOneTx", testFullOneTx},
		{"StoppedBlock", testStoppedBlock},
		{"StoppedReject", testStoppedReject},
		{"StoppedShed", testStoppedShed},
		{"Claim", testClaim},
		{"ClaimAnyKey", testClaimAnyKey},
		{"ClaimWaits", testClaimWaits},
		{"ConcurrentClaims", testConcurrentClaims},
		{"Once", testOnce},
		{"Purge", testPurge},
		{"Marks", testMarks},
		{"MarksTwoOfOne", testMarksTwoOfOne},
		{"SetAside", testSetAside},
		{"ConcurrentMarks", testConcurrentMarks},
		{"MarkWaits", testMarkWaits},
		{"PurgeMarks", testPurgeMarks},
	}
	for _, tc := range tests {
		if len(only) == 0 || slices.Contains(only, tc.name) {
			t.Run(tc.name, func(t *testing.T) { tc.fn(newEnv(t, open)) })
		}
	}
}

// patience bounds every wait of the suite.
const patience = 2 * time.Minute

// env is one test's database and the ways to use it.
type env struct {
	*testing.T
	ctx context.Context
	db  *sql.DB
	d   *outbox.Dialect
	box *outbox.Outbox
	log *Log
}

func newEnv(t *testing.T, open Open) *env {
	db, d := open(t)
	e := &env{T: t, ctx: t.Context(), db: db, d: d, log: &Log{}}
	e.must(outbox.Migrate(e.ctx, db, d))
	e.box = outbox.New(d, &outbox.Config{Logger: quiet()})
	return e
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) is(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("got error %v, want %v", err, want)
	}
}

// write commits messages, one transaction for all.
func (e *env) write(msgs ...outbox.Message) {
	e.Helper()
	e.must(e.box.Tx(e.ctx, e.db, func(tx *sql.Tx) error { return e.box.Write(e.ctx, tx, msgs...) }))
}

// writeSeq commits messages from to to of a key, one transaction each.
func (e *env) writeSeq(key string, from, to int) {
	e.Helper()
	for i := from; i <= to; i++ {
		e.write(message(key, i))
	}
}

func message(key string, seq int) outbox.Message {
	return outbox.Message{Topic: "test", Key: key, Body: []byte(strconv.Itoa(seq))}
}

// relayConfig has short times, for tests.
func relayConfig() *outbox.RelayConfig {
	return &outbox.RelayConfig{
		Lease: 400 * time.Millisecond, Batch: 50, PollMin: 5 * time.Millisecond, PollMax: 20 * time.Millisecond,
		MaxBackoff: 50 * time.Millisecond, BlockRetry: 100 * time.Millisecond, Logger: quiet(),
	}
}

// running is a relay under way.
type running struct {
	*outbox.Relay
	stop func() // ends it and waits; safe to call again
}

// relay runs a relay until the test ends.
func (e *env) relay(pub outbox.Publisher, cfg *outbox.RelayConfig) *running {
	r := outbox.NewRelay(e.box, e.db, pub, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			e.Errorf("relay: %v", err)
		}
	}()
	stop := func() { cancel(); <-done }
	e.Cleanup(stop)
	return &running{Relay: r, stop: stop}
}

// until polls cond until it holds.
func (e *env) until(what string, cond func() bool) {
	e.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			e.Fatalf("waited %v for: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond) // between two polls
	}
}

// empty waits until no row is left in the outbox.
func (e *env) empty() {
	e.Helper()
	e.until("an empty outbox", func() bool { return e.depth().Rows == 0 })
}

func (e *env) depth() outbox.Backlog {
	e.Helper()
	b, err := outbox.Depth(e.ctx, e.db, e.d)
	e.must(err)
	return b
}

// inOrder checks that the log holds 1 to n of a key in this order, not counting
// what came again, and answers how many did.
func (e *env) inOrder(key string, n int) (again int) {
	e.Helper()
	next := 1
	for _, m := range e.log.Messages() {
		if m.Key != key {
			continue
		}
		seq, err := strconv.Atoi(string(m.Body))
		e.must(err)
		switch {
		case seq == next:
			next++
		case seq < next:
			again++
		default:
			e.Fatalf("key %q: message %d was published before %d", key, seq, next)
		}
	}
	if next != n+1 {
		e.Fatalf("key %q: %d messages were published, want %d", key, next-1, n)
	}
	return again
}

// once is inOrder without a duplicate.
func (e *env) once(key string, n int) {
	e.Helper()
	if again := e.inOrder(key, n); again != 0 {
		e.Fatalf("key %q: %d messages were published again", key, again)
	}
}
