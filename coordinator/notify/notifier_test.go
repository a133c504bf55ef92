package notify_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga/txn"
)

// TestTypes: each kind of event, from an observer, in order, and only to those
// who want it.
func TestTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, ends := &inbox{}, &inbox{}
		s := newShelf(t, "a-1")
		n, _ := deliver(t, s, nil, notify.Subscriber{Name: "all", Sink: all},
			notify.Subscriber{Name: "ends", Sink: ends, Types: []notify.Type{notify.Abandoned}})
		verb := map[string]string{"actor": "alice", "reason": "because", "branch": "b"}
		for _, gid := range []string{"acme\x00g", "g"} {
			tenant := func(r *store.Record) { r.Namespace, _, _ = strings.Cut(strings.TrimSuffix(gid, "g"), "\x00") }
			n.Observe(s.at(gid, txn.Running, "started", nil, tenant))
			n.Observe(s.stall(gid))
			synctest.Wait()
			n.Observe(s.at(gid, txn.RollingBack, "abort", verb, func(r *store.Record) { r.Stalled = false }))
			why := func(r *store.Record) { r.Reason = "refused" }
			n.Observe(s.at(gid, txn.Parked, "replied", map[string]string{"branch": "c"}, why))
			n.Observe(s.at(gid, txn.Parked, "pause", verb, nil)) // while the alert is looked up
			synctest.Wait()
			n.Observe(s.at(gid, txn.Parked, "abort", nil, nil)) // a deadline's: nobody gave a reason
			n.Observe(s.at(gid, txn.Abandoned, "abandon", verb, nil))
		}
		n.Observe(store.Record{GID: "\x02bulk", Kind: "bulk", State: uint8(txn.Committed)}, nil)
		n.Observe(s.at("h", txn.RolledBack, "replied", nil, nil))
		synctest.Wait()
		for gid, want := range map[string]string{
			"g": "stalled operated resumed parked operated operated resumed abandoned",
			"h": "rolled_back", "\x02bulk": "", "bulk": "",
		} {
			for _, ns := range []string{"", "acme"} {
				if got := words(all.of(), ns, gid); got != want && (ns == "" || gid == "g") {
					t.Errorf("%q of %q: %s, want %s", gid, ns, got, want)
				}
			}
		}
		got := all.of()[7].Event
		want := notify.Event{
			ID: "g/7/abandoned", Source: "amends/acme", Type: notify.Abandoned, Time: got.Time, Namespace: "acme", GID: "g",
			Seq: 7, Kind: "saga", Name: "pay", State: "ABANDONED", Reason: "because", Actor: "alice",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || got.Time.IsZero() {
			t.Errorf("event %+v, want %+v", got, want)
		}
		parked := all.of(notify.Parked)[0]
		if parked.Seq != 4 || parked.Branch != "c" || parked.Reason != "refused" || parked.WaitsFor != "bank" {
			t.Errorf("parked %+v", parked)
		}
		if got := ends.of(); len(got) != 2 || got[0].Type != notify.Abandoned {
			t.Errorf("who wants the abandoned got %v", got)
		}
	})
}

func words(events []arrived, ns, gid string) string {
	var out []string
	for _, e := range events {
		if e.Namespace == ns && e.GID == gid {
			out = append(out, string(e.Type)[len("dev.amends.transaction."):])
		}
	}
	return strings.Join(out, " ")
}

// TestLevelTriggered: without an observer, from the store alone, alerts come once,
// and the all-clear comes, too.
func TestLevelTriggered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b inbox
		s := newShelf(t, "a-1")
		for i := range 1200 { // some pages
			s.stall(fmt.Sprint("s", i))
		}
		s.at("p", txn.RollingBack, "started", nil, nil)
		s.at("p", txn.Parked, "replied", nil, nil)
		for range 100 { // some pages of its trail
			s.at("p", txn.Parked, "note", nil, nil)
		}
		deliver(t, s, nil, notify.Subscriber{Name: "b", Sink: &b})
		time.Sleep(time.Second)
		if n, p := len(b.of(notify.Stalled)), b.of(notify.Parked); n != 1200 || len(p) != 1 || p[0].ID != "p/2/parked" {
			t.Fatalf("%d stalled, parked %v", n, p)
		}
		s.finish("s7")
		s.at("p", txn.RollingBack, "retry", nil, nil)
		s.stall("new")
		time.Sleep(31 * time.Second)
		var got []string
		for _, e := range b.of()[1201:] {
			got = append(got, e.ID)
		}
		slices.Sort(got)
		if want := []string{"new/1/stalled", "p/103/resumed", "s7/2/resumed"}; !slices.Equal(got, want) {
			t.Errorf("then came %v, want %v", got, want)
		}
	})
}

// TestOverInAMoment: an alert that is over before it was looked up is not sent,
// and one that was overtaken is not sent late.
func TestOverInAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b inbox
		s := newShelf(t, "a-1")
		slow := &slowStore{Store: s}
		n, _ := deliver(t, slow, nil, notify.Subscriber{Name: "b", Sink: &b})
		synctest.Wait()
		slow.delay.Store(int64(time.Second))
		n.Observe(s.stall("g")) // loaded as stalled; known a second later
		time.Sleep(500 * time.Millisecond)
		n.Observe(s.finish("g"))
		time.Sleep(time.Minute)
		if got := b.words("g"); !slices.Equal(got, []string{"committed"}) {
			t.Errorf("%v, want only the end", got)
		}
	})
}

// slowStore answers a Load late.
type slowStore struct {
	store.Store
	delay atomic.Int64
	fails atomic.Bool
}

func (s *slowStore) Load(ctx context.Context, gid string) (store.Record, error) {
	rec, err := s.Store.Load(ctx, gid)
	time.Sleep(time.Duration(s.delay.Load()))
	if s.fails.Load() {
		return rec, errors.New("gone away")
	}
	return rec, err
}

// TestStoreOutage: an alert waits for the store, and comes.
func TestStoreOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b inbox
		s := newShelf(t, "a-1")
		slow := &slowStore{Store: s}
		slow.fails.Store(true)
		n, _ := deliver(t, slow, nil, notify.Subscriber{Name: "b", Sink: &b})
		n.Observe(s.stall("g"))
		time.Sleep(time.Minute)
		slow.fails.Store(false)
		time.Sleep(6 * time.Second)
		if got := b.words("g"); !slices.Equal(got, []string{"stalled"}) {
			t.Errorf("%v, want the alert", got)
		}
	})
}

// TestOverflow: what finds no room is dropped and counted; alerts are not, and
// come when the sink is back; observing never waits.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		b := &inbox{}
		b.down.Store(true)
		s := newShelf(t, "a-1")
		cfg := &notify.Config{QueueSize: 10, MaxAlerts: 15, BatchSize: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		n, stop := deliver(t, s, cfg, notify.Subscriber{Name: "b", Sink: b})
		began := time.Now()
		for i := range 100 {
			n.Observe(s.finish(fmt.Sprint("f", i)))
		}
		for i := range 20 {
			n.Observe(s.stall(fmt.Sprint("s", i)))
		}
		if time.Since(began) != 0 {
			t.Errorf("observing took %v", time.Since(began))
		}
		time.Sleep(time.Hour)
		got := n.Stats()[0]
		if got.Queued != 20 || got.Dropped != 90 || got.Alerts != 10 || got.Sent != 0 || got.Failures < 100 || got.Failures > 400 {
			t.Errorf("while it is down: %+v", got)
		}
		b.down.Store(false)
		time.Sleep(time.Minute)
		if got := n.Stats()[0]; got.Queued != 0 || got.Alerts != 15 || got.Sent != 25 {
			t.Errorf("when it is back, as many alerts as may be open: %+v", got)
		}
		for i := range 20 {
			n.Observe(s.finish(fmt.Sprint("s", i)))
			time.Sleep(10 * time.Second) // room for those that waited
		}
		if got := n.Stats()[0]; got.Alerts != 0 || len(b.of(notify.Stalled)) < 15 ||
			len(b.of(notify.Resumed)) != len(b.of(notify.Stalled)) {
			t.Errorf("when all resumed: %+v, %d alerts, %d resumed", got, len(b.of(notify.Stalled)), len(b.of(notify.Resumed)))
		}
		stop()
		if n := strings.Count(log.String(), "does not keep up"); n != 1 {
			t.Errorf("the overflow is logged %d times, want once:\n%s", n, log.String())
		}
	})
}

// TestRejected: what a sink will never take holds up nothing behind it.
func TestRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b inbox
		bad := notify.SinkFunc(func(ctx context.Context, events []notify.Event) error {
			if slices.ContainsFunc(events, func(e notify.Event) bool { return e.GID == "f3" }) {
				return fmt.Errorf("too odd: %w", notify.ErrRejected)
			}
			return b.Send(ctx, events)
		})
		s := newShelf(t, "a-1")
		n, _ := deliver(t, s, nil, notify.Subscriber{Name: "bad", Sink: bad})
		for i := range 6 {
			n.Observe(s.finish(fmt.Sprint("f", i)))
		}
		synctest.Wait()
		if got := n.Stats()[0]; got.Sent != 5 || got.Rejected != 1 || got.Queued != 0 {
			t.Errorf("%+v, want 5 sent and 1 rejected", got)
		}
	})
}

// TestRetryAfter: a sink that asks for a pause gets it.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		s := newShelf(t, "a-1")
		busy := notify.SinkFunc(func(context.Context, []notify.Event) error {
			if at = append(at, time.Since(began)); len(at) == 1 {
				return &notify.RetryAfterError{After: 2 * time.Minute, Err: errors.New("busy")}
			}
			return nil
		})
		n, stop := deliver(t, s, nil, notify.Subscriber{Name: "busy", Sink: busy})
		n.Observe(s.finish("g"))
		time.Sleep(10 * time.Minute)
		stop()
		if len(at) != 2 || at[1] != 2*time.Minute {
			t.Errorf("attempts at %v, want a second one after 2m", at)
		}
	})
}

// TestDrain: what is queued at the end is delivered, but not for ever.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b inbox
		slow := notify.SinkFunc(func(ctx context.Context, events []notify.Event) error {
			time.Sleep(time.Second)
			return b.Send(ctx, events)
		})
		hangs := notify.SinkFunc(func(ctx context.Context, _ []notify.Event) error {
			<-ctx.Done()
			return ctx.Err()
		})
		s := newShelf(t, "a-1")
		n, stop := deliver(t, s, &notify.Config{BatchSize: 1},
			notify.Subscriber{Name: "slow", Sink: slow}, notify.Subscriber{Name: "hangs", Sink: hangs})
		n.Observe(s.finish("f"))
		n.Observe(s.finish("g"))
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); len(b.of()) != 2 || took != 3*time.Second {
			t.Errorf("%d delivered, after %v; want 2 and 3s", len(b.of()), took)
		}
	})
}

// TestOwner: of several coordinators each tells what is in its own shards, and a
// shard's new owner tells again.
func TestOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b, anyone inbox
		s := newShelf(t, "a-1")
		if err := s.Release(t.Context(), "a-1"); err != nil {
			t.Fatal(err)
		}
		s.take("a-1", 1)
		s.take("a-b-1", 1)
		s.at("in-0", txn.Running, "started", nil, nil)
		s.at("in-1", txn.Running, "started", nil, func(r *store.Record) { r.Shard = 1 })
		s.stall("in-0")
		s.stall("in-1")
		deliver(t, s, &notify.Config{Owner: "a"}, notify.Subscriber{Name: "a", Sink: &a})
		deliver(t, s, &notify.Config{Owner: "a-b"}, notify.Subscriber{Name: "b", Sink: &b})
		deliver(t, s, nil, notify.Subscriber{Name: "c", Sink: &anyone})
		check := func(when string, wantA, wantB string) {
			t.Helper()
			time.Sleep(31 * time.Second)
			if gotA, gotB := strings.Join(ids(a.of()), " "), strings.Join(ids(b.of()), " "); gotA != wantA || gotB != wantB {
				t.Errorf("%s: a told %s and b %s; want %s and %s", when, gotA, gotB, wantA, wantB)
			}
		}
		check("at first", "amends in-0/2/stalled", "amends in-1/2/stalled")
		if err := s.Release(t.Context(), "a-1"); err != nil {
			t.Fatal(err)
		}
		s.take("a-b-1", 1)
		check("after a takeover", "amends in-0/2/stalled", "amends in-0/2/stalled amends in-1/2/stalled")
		s.finish("in-0")
		check("at the end", "amends in-0/2/stalled", "amends in-0/2/stalled amends in-0/3/resumed amends in-1/2/stalled")
		if got := len(anyone.of()); got != 3 {
			t.Errorf("who takes all got %d, want 3", got)
		}
	})
}

// TestConfig: every mistake is named.
func TestConfig(t *testing.T) {
	_, err := notify.New(newShelf(t, "a-1"), []notify.Subscriber{
		{Name: "x", Sink: &inbox{}, Types: []notify.Type{"stalled"}}, {Name: "x", Sink: &inbox{}}, {Name: "y"}, {Sink: &inbox{}},
	}, &notify.Config{QueueSize: -1, MaxAlerts: -1, BatchSize: -1, PollInterval: -1, SendTimeout: -1, DrainTimeout: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`"stalled"`, `subscriber 1 is named "x"`, `"y" has no Sink`, `subscriber 3 is named ""`, "Config.QueueSize", "Config.MaxAlerts",
		"Config.BatchSize", "Config.PollInterval", "Config.SendTimeout", "Config.DrainTimeout",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
