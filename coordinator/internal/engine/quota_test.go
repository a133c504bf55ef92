package engine

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// given are quotas by namespace, which a test may change.
type given struct {
	mu  sync.Mutex
	all map[string]Quota
}

func (g *given) of(namespace string) Quota {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all[namespace]
}

func (g *given) set(namespace string, q Quota) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all[namespace] = q
}

func quotasOf(namespace string, q Quota) *given { return &given{all: map[string]Quota{namespace: q}} }

// beginIn begins a TCC transaction, which waits for its owner.
func beginIn(t *testing.T, r *running, namespace, gid string) error {
	t.Helper()
	_, _, err := r.BeginTCC(t.Context(), wire.Key(namespace, gid), &tcc.Definition{Name: "trip", Timeout: time.Minute}, nil)
	return err
}

// wantOver checks a refusal, and returns when to try again.
func wantOver(t *testing.T, err error, namespace, quota, limit string) time.Duration {
	t.Helper()
	var own *amendsv1.Error
	if !errors.As(err, &own) || !errors.Is(err, amendsv1.ErrOverloaded) || own.RetryAfter <= 0 ||
		own.Metadata["namespace"] != namespace || own.Metadata["quota"] != quota || own.Metadata["limit"] != limit {
		t.Fatalf("%v %+v, want over quota %s of %s in %s", err, own, quota, limit, namespace)
	}
	return own.RetryAfter
}

// TestLiveQuota: a namespace at its quota starts nothing more, and gets on with
// what it has; others take no notice; and there is room again for each that ends.
func TestLiveQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := launch(t, newStore(), &Config{Quota: quotasOf("shop", Quota{Live: 3}).of}, ok)
		for i := range 3 {
			if err := beginIn(t, r, "shop", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // a refusal takes nothing
			wantOver(t, beginIn(t, r, "shop", "3"), "shop", quotaLive, "3")
		}
		if err := beginIn(t, r, "shop", "2"); err != nil {
			t.Errorf("a repeated start, at the quota: %v", err)
		}
		for i := range 10 {
			if err := errors.Join(beginIn(t, r, "bank", fmt.Sprint(i)), beginIn(t, r, "", fmt.Sprint(i))); err != nil {
				t.Errorf("in other namespaces: %v", err)
			}
		}
		// What is under way gets on, forwards and back.
		if _, err := r.Try(t.Context(), wire.Key("shop", "0"), tcc.Branch{Name: "a", Action: "svc.a"}); err != nil {
			t.Errorf("a try at the quota: %v", err)
		}
		if _, err := r.Abort(t.Context(), wire.Key("shop", "0"), "ann", "enough"); err != nil {
			t.Errorf("an abort at the quota: %v", err)
		}
		if s := r.wait(wire.Key("shop", "0")); s != txn.RolledBack {
			t.Errorf("ended as %v", s)
		}
		synctest.Wait() // until it has left memory
		if err := beginIn(t, r, "shop", "3"); err != nil {
			t.Errorf("after one has ended: %v", err)
		}
		wantOver(t, beginIn(t, r, "shop", "4"), "shop", quotaLive, "3")
		stats := r.Stats()
		if got := stats.Quotas["shop"]; got.Now != 3 || got.Refused != 3 || got.Live != 3 || len(stats.Quotas) != 1 {
			t.Errorf("stats: %+v", stats.Quotas)
		}
		if n := stats.Refused[refusedQuota]; n != 3 {
			t.Errorf("%d refused in all, want 3", n)
		}
	})
}

// TestQuotaOwesNothing: what was started is taken over and driven to its end by
// an engine whose quota is far less, and counts.
func TestQuotaOwesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore()
		r := launch(t, st, nil, func(dispatch.Call) txn.Replied { return txn.Replied{} })
		for i := range 5 {
			r.startSaga(wire.Key("shop", fmt.Sprint(i)), steps(2))
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		answers := make(chan struct{})
		r = launch(t, st.Reopen(), &Config{Quota: quotasOf("shop", Quota{Live: 1, Rate: 0.001}).of}, func(c dispatch.Call) txn.Replied {
			<-answers
			return ok(c)
		})
		for r.Stats().Quotas["shop"].Now < 5 {
			time.Sleep(time.Second)
		}
		wantOver(t, beginIn(t, r, "shop", "new"), "shop", quotaLive, "1")
		close(answers)
		for i := range 5 {
			if s := r.wait(wire.Key("shop", fmt.Sprint(i))); s != txn.Committed {
				t.Errorf("saga %d ended as %v", i, s)
			}
		}
		synctest.Wait()
		if n := r.Stats().Quotas["shop"].Now; n != 0 {
			t.Errorf("%d are counted when all have ended", n)
		}
		if err := beginIn(t, r, "shop", "new"); err != nil {
			t.Errorf("with nothing under way: %v", err)
		}
	})
}

// TestRateQuota: so many at once, then so many over time; what is repeated or
// refused costs nothing; and a quota that changes counts from then on.
func TestRateQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quotas := quotasOf("shop", Quota{Rate: 2, Burst: 3})
		r := launch(t, newStore(), &Config{Quota: quotas.of}, ok)
		n := 0
		next := func() error {
			n++
			return beginIn(t, r, "shop", fmt.Sprint("s", n))
		}
		for range 3 {
			if err := next(); err != nil {
				t.Fatal(err)
			}
			if err := beginIn(t, r, "shop", "s1"); err != nil {
				t.Errorf("repeated: %v", err)
			}
		}
		for range 10 {
			if wait := wantOver(t, next(), "shop", quotaRate, "2"); wait > 500*time.Millisecond {
				t.Errorf("try again in %v, there is one in half a second", wait)
			}
		}
		for range 4 {
			time.Sleep(500 * time.Millisecond)
			if err := next(); err != nil {
				t.Errorf("half a second later: %v", err)
			}
			wantOver(t, next(), "shop", quotaRate, "2")
		}
		quotas.set("shop", Quota{})
		if err := next(); err != nil {
			t.Errorf("without a quota any more: %v", err)
		}
	})
}

// TestBulkHasNoQuota: a bulk is no tenant's start.
func TestBulkHasNoQuota(t *testing.T) {
	q := newQuotas(func(string) Quota { return Quota{Live: 1} })
	for range 3 {
		if err := q.take(&store.Record{Kind: KindBulk, Namespace: wire.BulkNamespace("shop")}, time.Now()); err != nil {
			t.Error(err)
		}
	}
}

// TestQuotasForget: namespaces that use nothing are forgotten, and none that
// does.
func TestQuotasForget(t *testing.T) {
	now := time.Now()
	q := newQuotas(func(string) Quota { return Quota{Rate: 0.1, Burst: 1} })
	for i := range 3 * sweepUses {
		rec := &store.Record{Namespace: fmt.Sprint("n", i)}
		if err := q.take(rec, now.Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			q.leave(rec)
		}
	}
	if n := len(q.uses); n > sweepUses {
		t.Errorf("%d are counted", n)
	}
	if u := q.uses["n0"]; u == nil || u.live != 1 {
		t.Error("one that uses something is forgotten")
	}
}
