package sdktest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
)

// TestMessageIsPublishedIfTheWorkCommits, whoever dies in between.
func TestMessageIsPublishedIfTheWorkCommits(t *testing.T) {
	inPost(t, nil, func(t *testing.T, p *post) {
		if err := p.send("commits", "", p.work); err != nil {
			t.Errorf("commits: %v", err)
		}
		no := errors.New("no stock")
		err := p.send("refuses", "", func(context.Context, string) error { return sdk.Refuse(no) })
		var rb *sdk.RolledBackError
		if !errors.As(err, &rb) || !errors.Is(err, no) || rb.Code != sdk.CodeAborted || rb.GID != "refuses" {
			t.Errorf("refuses: %v", err)
		}
		if err := p.send("dies-committed", "", p.dies); !errors.Is(err, sdk.ErrUnknown) || !errors.Is(err, errDied) {
			t.Errorf("dies after its commit: %v", err)
		}
		err = p.send("dies-rolled-back", "", func(context.Context, string) error { return errDied })
		if !errors.Is(err, sdk.ErrUnknown) || errors.Is(err, sdk.ErrRolledBack) {
			t.Errorf("dies before its commit: %v", err)
		}
		for gid, want := range map[string]txn.State{
			"commits": txn.Committed, "refuses": txn.RolledBack, "dies-committed": txn.Committed, "dies-rolled-back": txn.RolledBack,
		} {
			if got := p.end(gid); got != want {
				t.Errorf("%s: %v, want %v", gid, got, want)
			}
		}
		time.Sleep(10 * time.Second)
		if got := p.published(); !slices.Equal(got, []string{"commits", "dies-committed"}) {
			t.Errorf("published %q", got)
		}
		if n := p.asked.Load(); n != 2 {
			t.Errorf("asked %d times, want once for each that died", n)
		}
		// The outcome outlives whoever asks, and sending again tells it.
		time.Sleep(time.Hour)
		if err := p.send("dies-committed", "", func(context.Context, string) error { t.Error("works again"); return nil }); err != nil {
			t.Errorf("asked an hour later: %v", err)
		}
		if err := p.Client().Run("nobody").Wait(t.Context()); !errors.Is(err, sdk.ErrNotFound) || errors.Is(err, sdk.ErrRolledBack) {
			t.Errorf("a gid that nobody knows: %v", err)
		}
	})
}

// TestCheckThatIsAwayHoldsUpNobody: the check of 20 messages is away;
// 200 others are published as if it were not, and then those 20.
func TestCheckThatIsAwayHoldsUpNobody(t *testing.T) {
	inPost(t, nil, func(t *testing.T, p *post) {
		p.silent.Store(true)
		for i := range 20 {
			if err := p.send(fmt.Sprintf("dead%d", i), fmt.Sprintf("dead%d", i), p.dies); !errors.Is(err, sdk.ErrUnknown) {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Minute)
		for i := range 200 {
			began := time.Now()
			if err := p.send(fmt.Sprintf("g%d", i), fmt.Sprintf("k%d", i%5), p.work); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > time.Second {
				t.Errorf("g%d took %v", i, d)
			}
		}
		time.Sleep(5 * time.Second)
		if n := len(p.published()); n != 200 {
			t.Errorf("%d of 200 are published", n)
		}
		for i := range 20 {
			state, err := p.Client().Run(fmt.Sprintf("dead%d", i)).State(t.Context())
			if err != nil || state != txn.Running {
				t.Errorf("dead%d is %v, %v", i, state, err)
			}
		}
		p.silent.Store(false)
		time.Sleep(3 * time.Minute)
		if n := len(p.published()); n != 220 {
			t.Errorf("%d of 220 are published", n)
		}
	})
}

// TestMessagesOfAKeyKeepTheirOrder: an undecided message holds back those of its
// key, and no others; one that is dropped lets them go.
func TestMessagesOfAKeyKeepTheirOrder(t *testing.T) {
	inPost(t, nil, func(t *testing.T, p *post) {
		p.silent.Store(true)
		drop := func(context.Context, string) error { return errDied }
		for _, m := range []struct {
			gid  string
			work func(context.Context, string) error
		}{
			{"a1", p.work}, {"a2", p.dies}, {"a3", p.work}, {"a4", drop}, {"a5", p.work}, {"b1", p.work}, {"a6", p.dies}, {"a7", p.work},
		} {
			if err := p.send(m.gid, m.gid[:1], m.work); err != nil && !errors.Is(err, errDied) {
				t.Fatal(m.gid, err)
			}
		}
		if err := p.send("keyless", "", p.work); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		got := p.published()
		slices.Sort(got)
		if want := []string{"a1", "b1", "keyless"}; !slices.Equal(got, want) {
			t.Errorf("while a2 is undecided: %q, want %q", got, want)
		}
		p.silent.Store(false)
		time.Sleep(10 * time.Minute)
		var a []string
		for _, id := range p.published() {
			if strings.HasPrefix(id, "a") {
				a = append(a, id)
			}
		}
		if want := []string{"a1", "a2", "a3", "a5", "a6", "a7"}; !slices.Equal(a, want) {
			t.Errorf("published %q, want %q", a, want)
		}
	})
}

// TestForgottenPlaceHoldsNobodyBack: an operator abandons a message; its key goes
// on when the courier is told.
func TestForgottenPlaceHoldsNobodyBack(t *testing.T) {
	inPost(t, nil, func(t *testing.T, p *post) {
		p.silent.Store(true)
		if err := p.send("k1", "k", p.dies); !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		if err := p.send("k2", "k", p.work); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := p.published(); len(got) > 0 {
			t.Fatalf("published %q", got)
		}
		if n, err := p.courier.Forget(t.Context(), "k1"); n != 1 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
		if n, err := p.courier.Forget(t.Context(), "k1"); n != 0 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
		time.Sleep(10 * time.Second)
		if got := p.published(); !slices.Equal(got, []string{"k2"}) {
			t.Errorf("published %q", got)
		}
		p.silent.Store(false) // it was not abandoned after all
		time.Sleep(10 * time.Minute)
		if got := p.published(); !slices.Equal(got, []string{"k2", "k1"}) {
			t.Errorf("published %q", got)
		}
	})
}

// TestMessagesOverABadNetwork: calls and answers are lost and repeated, the
// coordinator crashes, senders die. Each message whose work committed is
// published once, no other, and those of each key in their order.
func TestMessagesOverABadNetwork(t *testing.T) {
	for seed := range int64(2) {
		cfg := &sdktest.Config{Faults: sdktest.Faults{LoseRequests: 0.1, LoseReplies: 0.1, Repeat: 0.2, Seed: seed + 1}}
		inPost(t, cfg, func(t *testing.T, p *post) {
			var all sync.WaitGroup
			want := make([][]string, 6)
			for k := range want {
				all.Go(func() {
					for i := range 15 {
						gid, work := fmt.Sprintf("k%d-%d", k, i), p.work
						switch (i*7 + k) % 5 {
						case 0:
							work = p.dies
						case 1:
							work = func(context.Context, string) error { return errDied }
						case 2:
							work = func(context.Context, string) error { return sdk.Refuse(errDied) }
						}
						if err := p.send(gid, fmt.Sprint(k), work); err != nil && !errors.Is(err, errDied) {
							t.Error(gid, err)
						}
						if r := (i*7 + k) % 5; r != 1 && r != 2 {
							want[k] = append(want[k], gid)
						}
					}
				})
			}
			for range 3 {
				time.Sleep(20 * time.Second)
				p.Crash()
			}
			all.Wait()
			time.Sleep(15 * time.Minute)
			got := make([][]string, len(want))
			for _, id := range p.published() {
				k := id[1] - '0'
				got[k] = append(got[k], id)
			}
			for k := range want {
				if !slices.Equal(got[k], want[k]) {
					t.Errorf("seed %d, key %d: published %q\nwant %q", seed, k, got[k], want[k])
				}
			}
		})
	}
}
