package outboxtest

import (
	"context"
	"sync"
	"time"

	"github.com/amends-dev/amends/outbox"
)

// blockingHook acknowledges after release is closed, whatever its context says:
// a process that was stopped in the middle of a call.
func blockingHook(entered chan<- struct{}, release <-chan struct{}) func(context.Context, []outbox.Message) []error {
	return func(context.Context, []outbox.Message) []error {
		entered <- struct{}{}
		<-release
		return nil
	}
}

// resume closes a channel when it is called or the test ends, before the relays
// started until now are waited for.
func (e *env) resume(c chan struct{}) func() {
	once := sync.OnceFunc(func() { close(c) })
	e.Cleanup(once)
	return once
}

// crashed is a Publisher that passes on the first batch and then hangs for ever:
// to everybody else, a process that died between acknowledgement and delete.
type crashed struct {
	log  *Log
	dead chan struct{} // receives when it hangs
	end  chan struct{} // closed when the test ends
}

func (c *crashed) Publish(ctx context.Context, msgs []outbox.Message) []error {
	errs := c.log.Publish(ctx, msgs)
	c.dead <- struct{}{}
	<-c.end
	return errs
}

// crashedKeys hangs where the mark has been made and the rows are still there.
type crashedKeys struct {
	Keys
	dead chan struct{}
	end  chan struct{}
}

func (k *crashedKeys) MarkAcked(ctx context.Context, part int, ids []string) error {
	err := k.Keys.MarkAcked(ctx, part, ids)
	k.dead <- struct{}{}
	<-k.end
	return err
}

func testCrashBeforeDelete(e *env) {
	e.writeSeq("k", 1, 20)
	c := &crashed{log: e.log, dead: make(chan struct{}, outbox.Partitions), end: make(chan struct{})}
	old := e.relay(c, relayConfig())
	resume := e.resume(c.end)
	<-c.dead
	e.relay(e.log, relayConfig())
	e.empty()
	if again := e.inOrder("k", 20); again != 20 {
		e.Errorf("%d messages came again, want the 20 that were not deleted", again)
	}
	resume()
	old.stop()
}

func testCrashBeforeDeleteWithKeys(e *env) {
	e.writeSeq("k", 1, 20)
	k := &crashedKeys{dead: make(chan struct{}, outbox.Partitions), end: make(chan struct{})}
	cfg := relayConfig()
	cfg.Keys = k
	old := e.relay(e.log, cfg)
	resume := e.resume(k.end)
	<-k.dead
	e.writeSeq("k", 21, 30)
	cfg = relayConfig()
	cfg.Keys = &k.Keys
	next := e.relay(e.log, cfg)
	e.empty()
	e.once("k", 30)
	if got := next.Stats().Skipped; got != 20 {
		e.Errorf("the successor skipped %d messages, want 20", got)
	}
	resume()
	old.stop()
}

// testPausedOwner stops an owner for longer than its lease while its batch is
// on the way. Its successor goes on; the owner, resumed, must neither delete
// rows that are not its own any more nor publish another batch.
func testPausedOwner(e *env) {
	paused := &Log{}
	entered, release := make(chan struct{}, outbox.Partitions), make(chan struct{})
	paused.SetHook(blockingHook(entered, release))
	e.writeSeq("k", 1, 10)
	first := e.relay(paused, relayConfig())
	resume := e.resume(release)
	<-entered
	e.writeSeq("k", 11, 20)
	cfg := relayConfig()
	cfg.Lease = 20 * time.Second // on a busy machine, too, it keeps what it took
	second := e.relay(e.log, cfg)
	e.until("the successor", func() bool { return e.log.Len() == 20 })
	e.empty()

	// A row that the old owner has read is there again only if ids repeat; that
	// its delete is refused shows in the counter, and in rows that stay.
	e.log.SetHook(func(_ context.Context, msgs []outbox.Message) []error { return failAll(msgs, errDown) })
	e.writeSeq("k", 21, 30)
	paused.SetHook(nil)
	before := first.Stats().LeasesLost // of other partitions, on a busy machine
	resume()
	e.until("the old owner to notice", func() bool { return paused.Len() >= 10 && first.Stats().LeasesLost > before })
	if n := paused.Len(); n != 10 {
		e.Errorf("the old owner published %d messages, want only the 10 that were on the way", n)
	}
	if rows := e.depth().Rows; rows != 10 {
		e.Errorf("%d rows are left, want 10", rows)
	}
	e.log.SetHook(nil)
	e.empty()
	e.once("k", 30)
	if lost := second.Stats().LeasesLost; lost != 0 {
		e.Errorf("the successor lost %d partitions", lost)
	}
	first.stop()
}
