package main

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/memstore"
)

const printed = `alice to bob, 500: committed
alice to bob, 100000: rolled back at "debit": account alice: unknown, or not enough money
alice to nobody, 100: rolled back at "credit": account nobody: unknown, or not enough money
alice has 500
bob has 500
`

func TestTransfer(t *testing.T) { transferAt(t, "") }

// TestTransferElsewhere transfers by a coordinator that listens, as that of
// `amends dev` does, and which knows of the transfers afterwards.
func TestTransferElsewhere(t *testing.T) {
	st := memstore.New(nil)
	c, err := coordinator.New(t.Context(), st, nil)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error { return c.Serve(ctx, lis) })
	for range 2 { // it may be run again
		transferAt(t, lis.Addr().String())
	}
	if known, err := st.List(t.Context(), store.Query{}, nil, 10); err != nil || len(known) != 6 {
		t.Errorf("the coordinator knows %d transfers, want 6: %v", len(known), err)
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func transferAt(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, &out, t.TempDir(), addr); err != nil {
		t.Fatal(err)
	}
	if out.String() != printed {
		t.Errorf("printed:\n%s\nwant:\n%s", out.String(), printed)
	}
}
