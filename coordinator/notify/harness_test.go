package notify_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
)

var quiet = slog.New(slog.DiscardHandler)

// arrived is an event and when a sink took it.
type arrived struct {
	notify.Event
	at time.Time
}

// inbox is a sink that remembers, and fails while it is down.
type inbox struct {
	down atomic.Bool
	mu   sync.Mutex
	got  []arrived
}

func (b *inbox) Send(_ context.Context, events []notify.Event) error {
	if b.down.Load() {
		return errors.New("down")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
		b.got = append(b.got, arrived{e, time.Now()})
	}
	return nil
}

// of returns what arrived of some types; none: of all.
func (b *inbox) of(types ...notify.Type) []arrived {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []arrived
	for _, e := range b.got {
		if len(types) == 0 || slices.Contains(types, e.Type) {
			out = append(out, e)
		}
	}
	return out
}

// words are the last words of the types that arrived for a gid, in order.
func (b *inbox) words(gid string) []string {
	var out []string
	for _, e := range b.of() {
		if e.GID == gid {
			out = append(out, string(e.Type)[len("dev.amends.transaction."):])
		}
	}
	return out
}

// process is a coordinator with a Notifier, as one process has them.
type process struct {
	*coordinator.Coordinator
	notifier *notify.Notifier
	st       *memstore.Store
	client   *sdk.Client
	t        *testing.T
	stop     context.CancelFunc
	ended    sync.WaitGroup
}

func start(t *testing.T, st *memstore.Store, cfg *notify.Config, subs ...notify.Subscriber) *process {
	t.Helper()
	if cfg == nil {
		cfg = &notify.Config{}
	}
	cfg.Logger = quiet
	n, err := notify.New(st, subs, cfg)
	if err != nil {
		t.Fatal(err)
	}
	name := cfg.Owner
	c, err := coordinator.New(t.Context(), st, &coordinator.Config{
		Name: name, Logger: quiet, DrainTimeout: 100 * time.Millisecond,
		Observers: []func(store.Record, []store.Event){n.Observe},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &process{Coordinator: c, notifier: n, st: st, t: t, stop: stop}
	p.ended.Go(func() {
		if err := c.Run(ctx); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	p.ended.Go(func() {
		if err := n.Run(ctx); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	p.client = sdk.NewClient(c.Conn(), nil)
	t.Cleanup(p.end)
	return p
}

func (p *process) end() {
	p.stop()
	p.ended.Wait()
}

// crash cuts the process off its store, and returns the store as others see it.
func (p *process) crash() *memstore.Store {
	p.t.Helper()
	if err := p.st.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.end()
	return p.st.Reopen()
}

// bank is a participant whose debit is stuck unless it is well.
type bank struct {
	well    atomic.Bool
	refuses atomic.Bool // to undo
}

var (
	debit = saga.NewAction[int, int]("bank.debit")
	rare  = txn.Retry{Initial: time.Hour, Cap: time.Hour, Jitter: -1}
	open  = saga.NewAction[int, int]("bank.open")
	pay   = saga.Define("pay", func(b *saga.Builder, cents int) { b.Step("debit", debit.With(cents)).Retry(rare) })
	// enrol does a step, whose undo the bank may refuse, and then what pay does.
	enrol = saga.Define("enrol", func(b *saga.Builder, cents int) {
		b.Step("open", open.With(cents))
		b.Step("debit", debit.With(cents)).Retry(rare)
	})
)

func (b *bank) attend(t *testing.T, p *process) {
	t.Helper()
	db, err := sql.Open("sqlite", fmt.Sprintf("file:/%p?vfs=memdb", p))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	part := sdk.NewParticipant("bank", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleSaga(part, debit, func(_ context.Context, _ *sql.Tx, cents int) (int, error) {
		if !b.well.Load() {
			return 0, errors.New("the ledger is locked")
		}
		return cents, nil
	}, func(context.Context, *sql.Tx, int, int) error { return nil })
	sdk.HandleSaga(part, open, func(_ context.Context, _ *sql.Tx, cents int) (int, error) {
		return cents, nil
	}, func(context.Context, *sql.Tx, int, int) error {
		if b.refuses.Load() {
			return sdk.Refuse(errors.New("spent"))
		}
		return nil
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := part.Run(ctx, p.Conn()); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (p *process) start(s saga.Saga[int], gid string) {
	p.t.Helper()
	cfg := &sdk.StartConfig{GID: gid, Labels: map[string]string{"order": gid}}
	if _, err := sdk.Start(p.t.Context(), p.client, s, 100, cfg); err != nil {
		p.t.Fatal(err)
	}
}

// eventually asks until it is so, for a minute at most.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

// shelf is a store that a test writes itself.
type shelf struct {
	*memstore.Store
	t     *testing.T
	lease map[int]store.Lease
}

func newShelf(t *testing.T, owner string) *shelf {
	t.Helper()
	s := &shelf{Store: memstore.New(&memstore.Config{Shards: 2}), t: t, lease: map[int]store.Lease{}}
	s.take(owner, 2)
	return s
}

func (s *shelf) take(owner string, n int) {
	s.t.Helper()
	leases, err := s.Acquire(s.t.Context(), owner, time.Hour, n)
	if err != nil || len(leases) != n {
		s.t.Fatalf("took %d leases: %v", len(leases), err)
	}
	for _, l := range leases {
		s.lease[l.Shard] = l
	}
}

// at writes the next version of a transaction, with an audit event, and returns
// what an observer would be told.
func (s *shelf) at(
	gid string, state txn.State, kind string, d map[string]string, change func(*store.Record),
) (store.Record, []store.Event) {
	s.t.Helper()
	rec, err := s.Load(s.t.Context(), gid)
	if err != nil {
		rec = store.Record{GID: gid, Kind: "saga", Name: "pay", CreatedAt: time.Now(), NextAt: time.Now().Add(time.Hour)}
	}
	rec.Version++
	rec.EventSeq++
	rec.State, rec.UpdatedAt = uint8(state), time.Now()
	if state.Finished() {
		rec.FinishedAt = rec.UpdatedAt
	}
	if change != nil {
		change(&rec)
	}
	if d == nil {
		d = map[string]string{}
	}
	d["state"] = state.String()
	data, err := json.Marshal(d)
	if err != nil {
		s.t.Fatal(err)
	}
	ev := store.Event{GID: gid, Seq: rec.EventSeq, At: rec.UpdatedAt, Type: kind, Data: data}
	w := store.Write{Record: rec, Events: []store.Event{ev}}
	batch := store.Batch{Leases: []store.Lease{s.lease[rec.Shard]}, Writes: []store.Write{w}}
	if err := s.Commit(s.t.Context(), batch); err != nil {
		s.t.Fatal(err)
	}
	return rec, w.Events
}

// stall makes a transaction stalled.
func (s *shelf) stall(gid string) (store.Record, []store.Event) {
	return s.at(gid, txn.Running, "stalled", map[string]string{"message": "waits"}, func(r *store.Record) {
		r.Stalled, r.WaitsFor = true, "bank"
	})
}

// finish commits a transaction.
func (s *shelf) finish(gid string) (store.Record, []store.Event) {
	return s.at(gid, txn.Committed, "replied", nil, func(r *store.Record) { r.Stalled, r.WaitsFor = false, "" })
}

// deliver runs a Notifier until the test ends.
func deliver(t *testing.T, st store.Store, cfg *notify.Config, subs ...notify.Subscriber) (n *notify.Notifier, stop func()) {
	t.Helper()
	if cfg == nil {
		cfg = &notify.Config{}
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	n, err := notify.New(st, subs, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return n, stop
}
