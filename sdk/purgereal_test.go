package sdk

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

var (
	quick    = saga.Define("quick", func(b *saga.Builder, in debitReq) { b.Step("debit", debit.With(in)).Pivot() })
	stalling = saga.Define("stalling", func(b *saga.Builder, in debitReq) {
		b.Step("debit", debit.With(in))
		b.Step("more", debit.With(debitReq{From: "bob"})).After("debit")
	})
)

// TestPurgeWithACoordinator: of two sagas one ends and is forgotten. The other
// waits, until an operator turns it back: its undo finds what was done.
func TestPurgeWithACoordinator(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 6*patience)
	c, err := coordinator.New(ctx, memstore.New(nil), &coordinator.Config{Logger: quiet(), DrainTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(t, database(t), outbox.SQLite, "")
	l.meet = func(_ context.Context, _ *sql.Tx, req debitReq) error {
		if req.From == "bob" {
			return errors.New("not yet")
		}
		return nil
	}
	ended := make(chan error, 2)
	go func() { ended <- c.Run(ctx) }()
	go func() { ended <- l.Run(ctx, c.Conn()) }()
	l.asks = l.newPurge([]grpc.ClientConnInterface{c.Conn()})
	l.asks.cfg.After = time.Millisecond // what ended a moment ago

	client := NewClient(c.Conn(), &ClientConfig{Logger: quiet()})
	in := debitReq{From: "alice", Cents: 5}
	if err := RunSaga(ctx, client, quick, in, &StartConfig{GID: "quick"}); err != nil {
		t.Fatal(err)
	}
	run, err := Start(ctx, client, stalling, in, &StartConfig{GID: "stalls"})
	if err != nil {
		t.Fatal(err)
	}
	l.until(func() bool { return slices.Contains(l.left(), "stalls debit do") })
	l.until(func() bool { return len(l.left()) == 1 })
	l.wantLeft("stalls debit do")

	if _, err := amendsv1.NewOperatorServiceClient(c.Conn()).Abort(ctx, &amendsv1.AbortRequest{Gid: "stalls", Reason: "it waits"}); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(ctx); !errors.Is(err, ErrRolledBack) {
		t.Error(err)
	}
	l.stands(t, "do alice 5", "do alice 5", "undo alice 5 balance 2")
	l.until(func() bool { return len(l.left()) == 0 })
	stop()
	if err := errors.Join(<-ended, <-ended); err != nil {
		t.Error(err)
	}
}

// until purges until something is so.
func (l *ledger) until(so func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(6 * patience); ; time.Sleep(time.Millisecond) {
		if so() {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("left are %q", l.left())
		}
		l.asks.rounds = 0 // as if a day had passed
		if _, err := l.asks.round(l.t.Context()); err != nil {
			l.t.Fatal(err)
		}
	}
}
