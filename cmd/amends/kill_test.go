package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

const (
	kills    = 50
	lifetime = 700 * time.Millisecond // a process is killed at most this long after it was started
	starters = 3
	pause    = 10 * time.Millisecond  // between two starts of one starter
	answer   = 400 * time.Millisecond // how long a starter waits for its acknowledgement
)

// acked are the starts that a coordinator acknowledged.
type acked struct {
	mu   sync.Mutex
	runs map[string]bool // gid: whether its charge is declined
}

// startMany starts payments until ctx ends and notes the acknowledged ones.
func (a *acked) startMany(ctx context.Context, c *sdk.Client, who int) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		gid, decline := fmt.Sprintf("pay-%d-%d", who, n), n%4 == 3
		waiting, cancel := context.WithTimeout(ctx, answer)
		_, err := begin(waiting, c, gid, decline)
		cancel()
		switch {
		case err == nil:
			a.mu.Lock()
			a.runs[gid] = decline
			a.mu.Unlock()
		case ctx.Err() == nil && !errors.Is(err, sdk.ErrUnknown):
			return fmt.Errorf("start %s: %w", gid, err)
		}
	}
}

// TestKillLosesNothing kills a real coordinator with SIGKILL at random moments,
// also while it recovers, under a client that starts sagas. Every start that
// was acknowledged is found afterwards and ends as its input says, and its
// effects stand once or not at all.
func TestKillLosesNothing(t *testing.T) {
	n := seed(t)
	rnd := rand.New(rand.NewPCG(n, n))
	dir, addr := t.TempDir(), freePort(t, rnd)
	conn := connect(t, addr)
	client := sdk.NewClient(conn, &sdk.ClientConfig{Logger: quiet()})
	b := openBank(t, conn)

	a := &acked{runs: map[string]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for who := range starters {
		g.Go(func() error { return a.startMany(ctx, client, who) })
	}
	args := []string{"serve", "--data-dir", dir, "--listen", addr, "--log-level", "warn"}
	for range kills {
		p := start(t, args...)
		select { // the moment is random: nothing is waited for
		case <-time.After(time.Duration(rnd.Int64N(int64(lifetime)))):
		case <-ctx.Done():
		}
		p.kill()
	}
	start(t, args...).waitFor(t, `^amends: serving on `)
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	checkEnds(t, client, b, a.runs)
	checkNothingOpen(t, conn, len(a.runs))
}

func checkEnds(t *testing.T, client *sdk.Client, b *bank, runs map[string]bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // all of the backlog, raced on a busy machine
	defer cancel()
	if len(runs) < kills {
		t.Fatalf("only %d starts were acknowledged: the test shows too little", len(runs))
	}
	for gid, decline := range runs {
		err := client.Run(gid).Wait(ctx)
		if decline && !errors.Is(err, sdk.ErrRolledBack) || !decline && err != nil {
			t.Fatalf("acknowledged start %s (declined: %v) ended as: %v", gid, decline, err)
		}
	}
	ledger := b.ledger(t)
	for gid, decline := range runs {
		if want := map[bool]int{false: 2, true: 0}[decline]; ledger[gid] != want {
			t.Errorf("%s (declined: %v) has %d entries, want %d", gid, decline, ledger[gid], want)
		}
	}
	t.Logf("%d kills, %d acknowledged starts, all found and finished", kills, len(runs))
}

// checkNothingOpen waits until the starts whose answer was lost have ended too.
func checkNothingOpen(t *testing.T, conn *grpc.ClientConn, atLeast int) {
	t.Helper()
	admin := amendsv1.NewAdminServiceClient(conn)
	eventually(t, "no transaction is unfinished", func() bool {
		open, err := admin.CountTransactions(t.Context(), &amendsv1.CountTransactionsRequest{Filter: "unfinished = true"})
		if err != nil {
			t.Fatal(err)
		}
		return open.GetTotal() == 0
	})
	all, err := admin.CountTransactions(t.Context(), &amendsv1.CountTransactionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if all.GetTotal() < int64(atLeast) {
		t.Errorf("the store has %d transactions, and %d starts were acknowledged", all.GetTotal(), atLeast)
	}
}
