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

	"github.com/amends-dev/amends/deploy/servicestest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/sdk"
)

const (
	starters = 3
	pause    = 10 * time.Millisecond  // between two starts of one starter
	answer   = 400 * time.Millisecond // how long a starter waits for its acknowledgement
)

// acked are the starts that a coordinator acknowledged.
type acked struct {
	mu   sync.Mutex
	runs map[string]bool // gid: whether its charge is declined
}

func (a *acked) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.runs)
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

// killing is how a coordinator is run and killed.
type killing struct {
	kills    int
	lifetime time.Duration // a process is killed at most this long after it was started
	working  bool          // every other one has acknowledged a start before that time begins
	env      []string
	args     []string                                 // beside "serve" and where to listen
	after    func(t *testing.T, runs map[string]bool) // while the last process runs; nil: nothing
}

// TestKillLosesNothing kills a real coordinator with SIGKILL at random moments,
// also while it recovers, under a client that starts sagas. Every start that
// was acknowledged is found afterwards and ends as its input says, and its
// effects stand once or not at all.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel() // most of its time it waits
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		k := killing{kills: 50, lifetime: 700 * time.Millisecond, env: environ(), args: []string{"--data-dir", t.TempDir()}}
		k.run(t)
	})
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		// Each process has to wait for the lease of the one before it.
		k := killing{
			kills: 10, lifetime: 2 * time.Second, working: true, env: environ("AMENDS_MYSQL_DSN=" + servicestest.MySQL(t)),
			args: []string{"--lease-ttl", "1s"},
		}
		k.run(t)
	})
}

func (k killing) run(t *testing.T) {
	n := seed(t)
	rnd := rand.New(rand.NewPCG(n, n))
	addr := freePort(t, rnd)
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
	args := append([]string{"serve", "--listen", addr, "--log-level", "warn"}, k.args...)
	for i := range k.kills {
		p := startIn(t, k.env, args...)
		if before := a.count(); k.working && i%2 == 1 {
			eventually(t, "a start is acknowledged", func() bool { return a.count() > before })
		}
		select { // the moment is random: nothing is waited for
		case <-time.After(time.Duration(rnd.Int64N(int64(k.lifetime)))):
		case <-ctx.Done():
		}
		p.kill()
	}
	startIn(t, k.env, args...).waitFor(t, `^amends: serving on `)
	stop()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	checkEnds(t, client, b, a.runs, k.kills)
	checkNothingOpen(t, conn, len(a.runs))
	if k.after != nil {
		k.after(t, a.runs)
	}
}

func checkEnds(t *testing.T, client *sdk.Client, b *bank, runs map[string]bool, kills int) {
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
