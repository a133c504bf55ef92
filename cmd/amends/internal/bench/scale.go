package bench

import (
	"context"
	"fmt"
	"hash/fnv"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

// Scale is how large what a workload runs on is. The zero value is one
// coordinator on an empty store, with one participant's stream.
type Scale struct {
	Finished     int // transactions in the store that ended long ago
	Sleeping     int // that are due in an hour
	Waiting      int // that are due, for a service that is away
	Coordinators int // on the store, which is mysql for more than one; 0: 1
	Streams      int // of the participant to each coordinator, each a connection; 0: 1
	MaxLive      int // of each coordinator; 0: its default
}

func (s *Scale) validate(c *Config, wrong func(bad bool, format string, args ...any)) {
	wrong(s.Finished < 0, "finished is %d: give 0 or more", s.Finished)
	wrong(s.Sleeping < 0, "sleeping is %d: give 0 or more", s.Sleeping)
	wrong(s.Waiting < 0, "waiting is %d: give 0 or more", s.Waiting)
	wrong(s.MaxLive < 0, "max-live is %d: give 0 or more", s.MaxLive)
	wrong(s.Coordinators < 0 || s.Coordinators > 16, "coordinators is %d: give 1 to 16", s.Coordinators)
	wrong(s.Coordinators > 1 && c.Store != "mysql", "%d coordinators share a store: give --store mysql", s.Coordinators)
	wrong(s.Streams < 0 || s.Streams > 10_000, "streams is %d: give 1 to 10000", s.Streams)
}

// String is what a result's setup says of it.
func (s *Scale) String() string {
	var b strings.Builder
	for _, part := range []struct {
		n    int
		more int // than so many are worth a word
		what string
	}{
		{s.Finished, 0, "finished in the store"}, {s.Sleeping, 0, "sleeping"}, {s.Waiting, 0, "waiting for a service that is away"},
		{s.Coordinators, 1, "coordinators"}, {s.Streams, 1, "participants' streams"}, {s.MaxLive, 0, "live at most"},
	} {
		if part.n > part.more {
			fmt.Fprintf(&b, ", %d %s", part.n, part.what)
		}
	}
	return b.String()
}

const (
	awayService = "bench-away" // that nobody is
	copyBatch   = 500          // transactions in a commit
	fillers     = 4            // that commit at once
	longAgo     = 24 * time.Hour
	later       = time.Hour
)

// fill puts into a store what was there before, by its own Commit: copies of a
// saga that a coordinator has run to its end on it, and of one that nobody has
// answered. Then it gives back what memory that took.
func (r *rig) fill(ctx context.Context, st store.Store) error {
	s := &r.cfg.Scale
	if s.Finished+s.Sleeping+s.Waiting == 0 {
		return nil
	}
	finished, begun, err := r.templates(ctx, st)
	if err != nil {
		return fmt.Errorf("make transactions to copy: %w", err)
	}
	now := time.Now()
	finished.Record.CreatedAt, finished.Record.UpdatedAt = now.Add(-longAgo), now.Add(-longAgo)
	finished.Record.FinishedAt = now.Add(-longAgo)
	begun.Record.CreatedAt, begun.Record.UpdatedAt = now, now
	sleeping, waiting := begun, begun
	sleeping.Record.NextAt, waiting.Record.NextAt = now.Add(later), now
	for _, copies := range []struct {
		of store.Write
		n  int
	}{{finished, s.Finished}, {sleeping, s.Sleeping}, {waiting, s.Waiting}} {
		if err := copyInto(ctx, st, copies.of, copies.n); err != nil {
			return fmt.Errorf("fill the store: %w", err)
		}
	}
	runtime.GC()
	debug.FreeOSMemory()
	return nil
}

// templates are a transaction that has committed, and one that has begun.
func (r *rig) templates(ctx context.Context, st store.Store) (finished, begun store.Write, err error) {
	c, err := coordinator.New(ctx, st, &coordinator.Config{Name: "fill", Logger: r.cfg.Logger})
	if err != nil {
		return finished, begun, err
	}
	g, stop := until(ctx, c.Run, func(ctx context.Context) error { return attendTrivially(ctx, c.Conn()) })
	defer func() {
		stop()
		if ended := g.Wait(); err == nil {
			err = ended
		}
	}()
	client := sdk.NewClient(c.Conn(), &sdk.ClientConfig{Logger: r.cfg.Logger})
	one := *r.cfg
	one.Steps = 2
	if err := sdk.RunSaga(ctx, client, sagaOf(&one), input{}, nil); err != nil {
		return finished, begun, err
	}
	if _, err := sdk.Start(ctx, client, unanswered(), input{}, nil); err != nil {
		return finished, begun, err
	}
	all, err := st.List(ctx, store.Query{}, nil, 2)
	if err != nil {
		return finished, begun, err
	}
	for i := range all {
		w, err := written(ctx, st, all[i].GID)
		if err != nil {
			return finished, begun, err
		}
		if w.Record.FinishedAt.IsZero() {
			begun = w
		} else {
			finished = w
		}
	}
	return finished, begun, nil
}

// unanswered is a saga of a service that nobody is.
func unanswered() saga.Saga[input] {
	ask := saga.NewAction[entry, done](awayService + ".move")
	return saga.Define("bench-unanswered", func(b *saga.Builder, in input) {
		for i := range 2 {
			b.Step(fmt.Sprintf("step-%d", i), ask.With(entry{Account: in.account + i}))
		}
	})
}

// written is a transaction as one write would have made it.
func written(ctx context.Context, st store.Store, gid string) (w store.Write, err error) {
	if w.Record, err = st.Load(ctx, gid); err != nil {
		return w, err
	}
	w.Record.Version = 1
	w.Events, err = st.Events(ctx, gid, 0, 1000)
	return w, err
}

// copyInto commits n copies of a transaction, with gids as clients make them.
func copyInto(ctx context.Context, st store.Store, w store.Write, n int) error {
	if n == 0 {
		return nil
	}
	const owner = "bench-fill"
	shards, err := st.Shards(ctx)
	if err != nil {
		return err
	}
	leases, err := st.Acquire(ctx, owner, time.Hour, shards)
	if err != nil || len(leases) != shards {
		return fmt.Errorf("took %d of %d shards: %w", len(leases), shards, err)
	}
	defer func() { _ = st.Release(context.WithoutCancel(ctx), owner) }() // or they run out
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fillers)
	for done := 0; done < n && ctx.Err() == nil; done += copyBatch {
		b := store.Batch{Leases: leases}
		for range min(copyBatch, n-done) {
			b.Writes = append(b.Writes, copyOf(&w, shards))
		}
		g.Go(func() error { return st.Commit(ctx, b) })
	}
	return g.Wait()
}

func copyOf(w *store.Write, shards int) store.Write {
	c := store.Write{Record: w.Record, Events: make([]store.Event, len(w.Events))}
	c.Record.GID = uuid.Must(uuid.NewV7()).String()
	h := fnv.New64a()                    // as the engine chooses shards: what is due is looked for there
	_, _ = h.Write([]byte(c.Record.GID)) // never fails
	c.Record.Shard = int(h.Sum64() % uint64(shards))
	copy(c.Events, w.Events)
	for i := range c.Events {
		c.Events[i].GID = c.Record.GID
	}
	return c
}

// memory is what this process holds, in MiB.
func memory() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Sys-m.HeapReleased) / (1 << 20)
}
