package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// slowly is a participant that takes some time.
func slowly(c dispatch.Call) txn.Replied {
	time.Sleep(time.Duration(5+len(c.GID)*7%40) * time.Millisecond)
	return ok(c)
}

// TestShardsSpread: whoever comes gets its share, and then nothing moves.
func TestShardsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), ok)
		b.exact = true
		for n, name := range []string{"a", "b", "c", "d"} {
			p := b.join(name, Config{})
			b.until("even shares", func() bool { return b.even(n + 1) })
			b.until("members", func() bool { return len(p.Members()) == n+1 })
		}
		if given := b.given(); given != 128+85+64 {
			t.Errorf("%d shards were handed over, want half, a third and a quarter of 256", given)
		}
		time.Sleep(10 * time.Minute)
		if given := b.given(); given != 128+85+64 || !b.even(4) {
			t.Errorf("%d shards handed over when nothing happened: %v", given, b.shares())
		}
		for _, p := range b.players { // they know of each other
			owner, here := p.Route("g1")
			want := b.players[0].Holdings()[p.shardOf("g1")].Owner
			if owner.Name != want || owner.Address != want+":1" || here != (want == p.Name()) {
				t.Errorf("%s takes g1 to %+v (here: %v), want %s", p.Name(), owner, here, want)
			}
		}
	})
}

// TestAllAtOnce: members that begin at the same time share what is free.
func TestAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), ok)
		for i := range 5 {
			b.join(fmt.Sprint("m", i), Config{})
		}
		b.until("even shares", func() bool { return b.even(5) })
	})
}

// TestKilledMemberIsFollowed within LeaseTTL and a second, whenever it dies.
func TestKilledMemberIsFollowed(t *testing.T) {
	for _, after := range []time.Duration{0, 700 * time.Millisecond, 1900 * time.Millisecond, 2400 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			var dying atomic.Bool
			b := newBand(t, newStore(), func(c dispatch.Call) txn.Replied {
				for dying.Load() {
					time.Sleep(10 * time.Millisecond)
				}
				return ok(c)
			})
			b.exact = true
			for _, name := range []string{"a", "b", "c"} {
				b.join(name, Config{})
			}
			b.until("even shares", func() bool { return b.even(3) })
			time.Sleep(after)
			dying.Store(true) // nothing is answered any more
			for i := range 60 {
				b.start(fmt.Sprint("g", i), steps(2))
			}
			began := time.Now()
			b.players[1].kill()
			dying.Store(false)
			all := func() bool { return len(b.shares()) == 2 && b.even(2) }
			b.until("shards of the dead", all)
			if d := time.Since(began); d > 11*time.Second {
				t.Errorf("its shards had owners after %v, want 11 s at most", d)
			}
			for i := range 60 {
				if got := b.ends(fmt.Sprint("g", i)); got != txn.Committed {
					t.Errorf("g%d is %v", i, got)
				}
			}
		})
	}
}

// TestStoppedMemberWakesUp: it sends nothing of what others own by then, and
// nothing of what it still would write is written.
func TestStoppedMemberWakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), func(c dispatch.Call) txn.Replied {
			time.Sleep(300 * time.Millisecond)
			if c.Attempt == 1 && c.Name == "a" && c.GID[len(c.GID)-1]%2 == 0 {
				return txn.Replied{Outcome: txn.Unknown}
			}
			return ok(c)
		})
		b.exact = true // Send checks
		for _, name := range []string{"a", "b"} {
			b.join(name, Config{})
		}
		b.until("even shares", func() bool { return b.even(2) })
		for i := range 50 {
			b.start(fmt.Sprint("g", i), steps(3, func(d *saga.Definition) {
				d.Steps[0].Retry = txn.Retry{Initial: 3 * time.Second, Jitter: -1}
			}))
		}
		time.Sleep(500 * time.Millisecond)
		// Calls are under way, whose outcomes are waiting when it wakes up; others
		// have failed, and are to be repeated by then.
		sleeper := b.players[0]
		resume := sleeper.stop()
		synctest.Wait()
		sent := sleeper.sends.Load()
		for i := range 50 {
			b.ends(fmt.Sprint("g", i)) // by the other one
		}
		time.Sleep(5 * time.Second)
		resume()
		synctest.Wait()
		if n := sleeper.sends.Load(); n != sent {
			t.Errorf("it sent %d calls of what had ended", n-sent)
		}
		for i := range 50 {
			if evs := checkTrail(t, b.st, fmt.Sprint("g", i)); len(evs) != 5-i%2 {
				t.Errorf("g%d has %d events, want %d", i, len(evs), 5-i%2)
			}
		}
		b.until("even shares again", func() bool { return b.even(2) })
	})
}

// TestHandOverUnderLoad: members come and go gently while clients start sagas.
// Nothing is lost, and nothing is done twice: calls under way end first.
func TestHandOverUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), slowly)
		b.exact, b.lag = true, 7*time.Millisecond
		b.join("a", Config{})
		b.until("the first", func() bool { return b.even(1) })
		var clients sync.WaitGroup
		var stop atomic.Bool
		var total atomic.Int64
		for c := range 4 {
			clients.Go(func() {
				for i := 0; !stop.Load(); i++ {
					gid := fmt.Sprintf("g%d-%d", c, i)
					b.start(gid, steps(3))
					if got := b.ends(gid); got != txn.Committed {
						t.Errorf("%s is %v", gid, got)
					}
					total.Add(1)
				}
			})
		}
		b.join("b", Config{})
		b.join("c", Config{})
		b.until("even shares", func() bool { return b.even(3) })
		b.players[0].end()
		b.until("even shares of two", func() bool { return b.even(2) })
		b.join("d", Config{})
		b.until("even shares of three", func() bool { return b.even(3) })
		if err := b.players[1].Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if n := b.shares()["b"]; n != 0 {
			t.Errorf("a drained member has %d shards", n)
		}
		if err := b.players[1].Undrain(t.Context()); err != nil {
			t.Error(err)
		}
		b.until("even shares after the drain", func() bool { return b.even(3) })
		stop.Store(true)
		clients.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.sent) != 3*int(total.Load()) || total.Load() < 50 {
			t.Errorf("%d steps of %d sagas", len(b.sent), total.Load())
		}
		for what, n := range b.sent {
			if n != 1 {
				t.Errorf("%s was called %d times", what, n)
			}
		}
	})
}

// TestHandOverWaitsForNobody for long: with a participant that hangs, shards
// move after a second, and the next owner asks again.
func TestHandOverWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Bool
		b := newBand(t, newStore(), func(c dispatch.Call) txn.Replied {
			if hang.Load() {
				return txn.Replied{}
			}
			return ok(c)
		})
		b.exact = true
		b.join("a", Config{})
		b.until("the first", func() bool { return b.even(1) })
		hang.Store(true)
		for i := range 20 {
			b.start(fmt.Sprint("g", i), steps(1))
		}
		b.join("b", Config{})
		synctest.Wait()
		hang.Store(false)
		began := time.Now()
		if err := b.players[0].Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("the drain took %v", d)
		}
		for i := range 20 {
			if got := b.ends(fmt.Sprint("g", i)); got != txn.Committed {
				t.Errorf("g%d is %v", i, got)
			}
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("all had ended after %v", d)
		}
	})
}

// TestDrainAlone: who is alone keeps what it has, until somebody comes.
func TestDrainAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), ok)
		a := b.join("a", Config{})
		b.until("the first", func() bool { return b.even(1) })
		if err := a.Drain(t.Context()); !errors.Is(err, ErrAlone) || !a.Draining() {
			t.Fatalf("drain of the only member: %v", err)
		}
		time.Sleep(time.Minute)
		b.start("g", steps(2))
		if got := b.ends("g"); got != txn.Committed {
			t.Errorf("while it drains alone: %v", got)
		}
		b.join("b", Config{})
		b.until("all went", func() bool { return b.shares()["b"] == a.shardCount })
		for _, m := range b.players[1].Members() {
			if m.Draining != (m.Name == "a") {
				t.Errorf("member %+v", m)
			}
		}
		b.players[1].kill()
		b.until("back to who drains, since nobody else is there", func() bool { return b.shares()["a"] == a.shardCount })
		if err := a.Undrain(t.Context()); err != nil || a.Draining() {
			t.Error(err)
		}
	})
}

// TestFlappingMember: shards do not follow one that comes and goes.
func TestFlappingMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), ok)
		b.join("a", Config{})
		b.until("the first", func() bool { return b.even(1) })
		b.join("b", Config{})
		b.until("even shares", func() bool { return b.even(2) })
		before := b.given()
		for range 20 {
			p := b.join("flap", Config{})
			time.Sleep(3 * time.Second)
			p.end()
			time.Sleep(time.Second)
		}
		if n := b.given() - before; n != 0 || !b.even(2) {
			t.Errorf("%d shards were handed over for it: %v", n, b.shares())
		}
	})
}

// TestTryIsRepeatedElsewhere: whoever heard ErrNotOwner, or nothing, asks the
// next owner, and is told what came of the try, also when all is decided.
func TestTryIsRepeatedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		b := newBand(t, newStore(), func(c dispatch.Call) txn.Replied {
			if c.Op == txn.Try {
				<-hang
			}
			return ok(c)
		})
		a := b.join("a", Config{})
		b.until("the first", func() bool { return b.even(1) })
		if _, _, err := a.BeginTCC(t.Context(), "x", &tcc.Definition{Name: "trip", Timeout: time.Hour}, nil); err != nil {
			t.Fatal(err)
		}
		seat := tcc.Branch{Name: "seat", Action: "flights.seat", Payload: []byte(`1`)}
		first := make(chan error, 1)
		go func() { _, err := a.Try(context.Background(), "x", seat); first <- err }()
		synctest.Wait()
		next := b.join("b", Config{})
		if err := a.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-first; !errors.Is(err, amendsv1.ErrNotOwner) {
			t.Errorf("a try whose shard left: %v", err)
		}
		if _, err := a.Try(t.Context(), "x", seat); !errors.Is(err, amendsv1.ErrNotOwner) {
			t.Errorf("a try at who is not the owner: %v", err)
		}
		close(hang)
		b.until("the next owner", func() bool { _, here := next.Route("x"); return here })
		for range 2 {
			if reply, err := next.Try(t.Context(), "x", seat); err != nil || string(reply) != `"done"` {
				t.Errorf("repeated: %q, %v", reply, err)
			}
		}
		if _, err := next.Commit(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		b.ends("x")
		if reply, err := next.Try(t.Context(), "x", seat); err != nil || string(reply) != `"done"` {
			t.Errorf("repeated when all is decided: %q, %v", reply, err)
		}
		seat.Payload = []byte(`2`)
		if _, err := next.Try(t.Context(), "x", seat); !errors.Is(err, amendsv1.ErrDecided) {
			t.Errorf("another one under its name: %v", err)
		}
	})
}

// TestWaitMovesOn: who waits for a transaction hears that its shard has left.
func TestWaitMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), func(dispatch.Call) txn.Replied { return txn.Replied{} })
		a := b.join("a", Config{})
		b.until("the first", func() bool { return b.even(1) })
		b.start("g", steps(1))
		told := make(chan error, 1)
		go func() { _, err := a.Wait(context.Background(), "g"); told <- err }()
		synctest.Wait()
		b.join("b", Config{})
		if err := a.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case err := <-told:
			if !errors.Is(err, amendsv1.ErrNotOwner) {
				t.Errorf("waited for a transaction that left: %v", err)
			}
		default:
			t.Error("nobody told the waiter")
		}
	})
}

// TestBulkReachesEverybody: the member that has a bulk sends its verb to the
// owners of transactions that it does not have.
func TestBulkReachesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBand(t, newStore(), func(dispatch.Call) txn.Replied { return txn.Replied{} })
		var remote atomic.Int32
		cfg := Config{Remote: func(ctx context.Context, owner store.Member, c Command) error {
			remote.Add(1)
			for _, p := range b.players {
				if p.Name() == owner.Name {
					_, err := p.Act(ctx, c)
					return err
				}
			}
			return amendsv1.ErrUnavailable
		}}
		b.join("a", cfg)
		b.join("b", cfg)
		b.until("even shares", func() bool { return b.even(2) })
		for i := range 20 {
			b.start(fmt.Sprint("g", i), steps(1))
		}
		bulk := Bulk{ID: wire.BulkKey("", "all"), Verb: pauseIt, Rate: 100, Reason: "r", Actor: "op", Query: store.Query{Unfinished: true, Kind: KindSaga}}
		at := b.players[0]
		if _, here := at.Route(bulk.ID); !here {
			at = b.players[1]
		}
		if _, _, err := at.StartBulk(t.Context(), bulk); err != nil {
			t.Fatal(err)
		}
		b.ends(bulk.ID)
		rec, err := at.Get(t.Context(), bulk.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, p, err := at.BulkOf(rec); err != nil || p.Acted != 20 || p.Failed != 0 || remote.Load() == 0 || remote.Load() == 20 {
			t.Errorf("%+v, %d of 20 at the other one: %v", p, remote.Load(), err)
		}
	})
}
