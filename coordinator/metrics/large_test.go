package metrics_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// What a store holds for BenchmarkLargeStore.
const (
	finishedRows = 100_000
	stalledRows  = 20_000
)

// largeStore is SQLite with a long history, and much that waits for one service.
func largeStore(b *testing.B) store.Store {
	b.Helper()
	st, err := sqlstore.OpenSQLite(b.Context(), b.TempDir(), &sqlstore.Config{Shards: 8, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	leases, err := st.Acquire(b.Context(), "seed", time.Hour, 8)
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now().Add(-24 * time.Hour).UTC().Truncate(time.Microsecond)
	payload := make([]byte, 600)
	var batch store.Batch
	for i := range finishedRows + stalledRows {
		at := begun.Add(time.Duration(i) * 500 * time.Millisecond)
		r := store.Record{
			GID: fmt.Sprintf("order-%07d", i), Shard: i % 8, Kind: "saga", Name: "order", Version: 1, CreatedAt: at, UpdatedAt: at,
			Definition: payload, Body: payload, Labels: map[string]string{"order_id": fmt.Sprint(i)}, EventSeq: 1, EventHash: payload[:32],
		}
		if i%6 == 5 && i < 6*stalledRows {
			r.State, r.Stalled, r.WaitsFor, r.NextAt = uint8(txn.Running), true, "bank", at.AddDate(1, 0, 0)
		} else {
			r.State, r.FinishedAt = uint8(txn.Committed), at
		}
		batch.Writes = append(batch.Writes, store.Write{Record: r,
			Events: []store.Event{{GID: r.GID, Seq: 1, At: at, Type: "started", Data: payload[:100], Hash: payload[:32]}}})
		if len(batch.Writes) == 1000 {
			batch.Leases = leases
			if err := st.Commit(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			batch = store.Batch{}
		}
	}
	if err := st.Release(b.Context(), "seed"); err != nil {
		b.Fatal(err)
	}
	return st
}

// BenchmarkLargeStore is what people and Prometheus wait for when there are
// 100,000 finished and 20,000 stalled transactions.
func BenchmarkLargeStore(b *testing.B) {
	c, err := coordinator.New(b.Context(), largeStore(b), &coordinator.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	admin, cluster := amendsv1.NewAdminServiceClient(c.Conn()), amendsv1.NewClusterServiceClient(c.Conn())
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New(c, &metrics.Config{SampleEvery: time.Nanosecond}))
	for _, m := range []struct {
		name string
		ask  func(ctx context.Context) error
	}{
		{"GetOverview", func(ctx context.Context) error {
			resp, err := cluster.GetOverview(ctx, &amendsv1.GetOverviewRequest{})
			if err == nil && resp.GetStalled() != stalledRows {
				err = fmt.Errorf("%d stalled", resp.GetStalled())
			}
			return err
		}},
		{"CountTransactions", func(ctx context.Context) error {
			resp, err := admin.CountTransactions(ctx, &amendsv1.CountTransactionsRequest{})
			if err == nil && resp.GetTotal() != finishedRows+stalledRows {
				err = fmt.Errorf("%d in all", resp.GetTotal())
			}
			return err
		}},
		{"CountStalled", func(ctx context.Context) error {
			_, err := admin.CountTransactions(ctx, &amendsv1.CountTransactionsRequest{Filter: `stalled = true`})
			return err
		}},
		{"ListStalled", func(ctx context.Context) error {
			_, err := admin.ListTransactions(ctx, &amendsv1.ListTransactionsRequest{Filter: `stalled = true`})
			return err
		}},
		{"ListByLabel", func(ctx context.Context) error {
			_, err := admin.ListTransactions(ctx, &amendsv1.ListTransactionsRequest{Filter: `labels.order_id = "77"`})
			return err
		}},
		{"Scrape", func(context.Context) error {
			_, err := registry.Gather()
			return err
		}},
	} {
		b.Run(m.name, func(b *testing.B) {
			for b.Loop() {
				if err := m.ask(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
