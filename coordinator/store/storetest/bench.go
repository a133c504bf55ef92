package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/amends-dev/amends/coordinator/store"
)

// Benchmark measures durable commits: transitions of transactions, each with
// its event, in batches of 1, 16 and 256. One in four is a new transaction, as
// in a saga of three steps.
func Benchmark(b *testing.B, open func(b *testing.B) store.Store) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			st := open(b)
			defer st.Close()
			leases, err := st.Acquire(b.Context(), "bench", time.Hour, Shards)
			if err != nil {
				b.Fatal(err)
			}
			live := make([]store.Write, 0, size)
			for i := range size {
				live = append(live, benchCreate(i))
			}
			b.ReportAllocs()
			done := 0
			for b.Loop() {
				if err := st.Commit(b.Context(), store.Batch{Leases: leases, Writes: live}); err != nil {
					b.Fatal(err)
				}
				done += len(live)
				for i, w := range live {
					live[i] = benchNext(w, i)
				}
			}
			b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

func benchCreate(i int) store.Write {
	w := create(uuid.Must(uuid.NewV7()).String())
	r := &w.Record
	r.Shard, r.CreatedAt, r.UpdatedAt, r.NextAt = i%Shards, time.Now(), time.Now(), time.Now()
	r.Definition, r.Body, r.Digest, r.EventHash = make([]byte, 600), make([]byte, 300), make([]byte, 32), make([]byte, 32)
	benchEvent(&w.Events[0])
	return w
}

func benchNext(w store.Write, i int) store.Write {
	if w.Record.Version == 4 {
		return benchCreate(i)
	}
	if w = next(w); w.Record.Version == 4 {
		w = store.Write{Record: w.Record, Events: w.Events}
		w.Record.NextAt, w.Record.FinishedAt, w.Record.State = time.Time{}, time.Now(), 4
	} else {
		w.Record.NextAt = time.Now()
	}
	w.Record.UpdatedAt, w.Record.Body, w.Record.EventHash = time.Now(), make([]byte, 300), make([]byte, 32)
	benchEvent(&w.Events[0])
	return w
}

func benchEvent(ev *store.Event) {
	ev.At, ev.Data, ev.Prev, ev.Hash = time.Now(), make([]byte, 120), make([]byte, 32), make([]byte, 32)
}
