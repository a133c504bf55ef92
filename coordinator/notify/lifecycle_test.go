package notify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/proto/amends/v1"
)

const threshold = time.Minute // coordinator.Config.StallAfter's default

// TestStuckParticipant is one outage of a service from its first minute to the
// end: an alert within five seconds of the threshold for each transaction that
// waits for it, one command that retries them all, at its rate, and the all-clear.
func TestStuckParticipant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiting, rate = 50, 10
		var b bank
		pager, ledger := &inbox{}, &inbox{}
		p := start(t, memstore.New(nil), nil,
			notify.Subscriber{Name: "pager", Sink: pager, Types: notify.AlertTypes()}, notify.Subscriber{Name: "all", Sink: ledger})
		b.attend(t, p)
		began := map[string]time.Time{}
		for i := range waiting {
			gid := fmt.Sprintf("pay-%02d", i)
			began[gid] = time.Now()
			p.start(pay, gid)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(threshold - waiting*100*time.Millisecond - time.Second)
		if early := pager.of(); len(early) != 0 {
			t.Errorf("%d alerts before the threshold: %v", len(early), early[0])
		}
		time.Sleep(15 * time.Second)
		checkAlerts(t, pager.of(), began)
		time.Sleep(10 * time.Minute)
		if n := len(pager.of()); n != waiting {
			t.Errorf("%d alerts after ten minutes more, want each once: %d", n, waiting)
		}

		b.well.Store(true)
		ops, cluster := amendsv1.NewOperatorServiceClient(p.Conn()), amendsv1.NewClusterServiceClient(p.Conn())
		from := time.Now()
		_, err := ops.StartBulk(t.Context(), &amendsv1.StartBulkRequest{
			Verb: amendsv1.Verb_VERB_RETRY_NOW, Filter: `stalled = true AND participant = "bank"`,
			Reason: "the ledger is back", RequestId: "ledger", Rate: rate,
		})
		if err != nil {
			t.Fatal(err)
		}
		var left []int64 // stalled, in each second, as the overview and the metrics have it
		for range 7 {
			time.Sleep(time.Second)
			o, err := cluster.GetOverview(t.Context(), &amendsv1.GetOverviewRequest{})
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, o.GetStalled())
		}
		near := func(n, want int64) bool { return n >= want-2 && n <= want+2 }
		if !near(left[0], waiting-rate) || !near(left[2], waiting-3*rate) || left[6] != 0 {
			t.Errorf("stalled, second by second: %v; want %d a second fewer", left, rate)
		}
		checkResume(t, pager.of(notify.Resumed), ledger, from, waiting, rate)
	})
}

// checkAlerts: each transaction once, within five seconds of its threshold, with
// what a person wants to know.
func checkAlerts(t *testing.T, alerts []arrived, began map[string]time.Time) {
	t.Helper()
	if len(alerts) != len(began) {
		t.Fatalf("%d alerts for %d transactions", len(alerts), len(began))
	}
	var latest time.Duration
	for _, e := range alerts {
		latest = max(latest, e.at.Sub(began[e.GID].Add(threshold)))
		if e.Type != notify.Stalled || e.WaitsFor != "bank" || e.LastError != "the ledger is locked" || e.Name != "pay" ||
			e.Branch != "debit" || e.Labels["order"] != e.GID || !strings.Contains(e.Reason, "waits for service") {
			t.Fatalf("alert %+v", e)
		}
		delete(began, e.GID)
	}
	if len(began) != 0 || latest > 5*time.Second {
		t.Errorf("%d got no alert; the latest came %v after the threshold, want 5 s at most", len(began), latest)
	}
	t.Logf("the latest alert came %v after the threshold", latest)
}

// checkResume: each was retried by the bulk, at its rate, got the all-clear and
// was committed, in this order.
func checkResume(t *testing.T, resumed []arrived, ledger *inbox, from time.Time, waiting, rate int) {
	t.Helper()
	verbs := ledger.of(notify.Operated)
	if len(resumed) != waiting || len(verbs) != waiting {
		t.Fatalf("%d resumed, %d retried, want %d of each", len(resumed), len(verbs), waiting)
	}
	took, want := verbs[waiting-1].at.Sub(from), time.Duration(waiting/rate)*time.Second
	if (took - want).Abs() > want/5 {
		t.Errorf("%d retries took %v, want %v at %d a second", waiting, took, want, rate)
	}
	for _, e := range verbs {
		if e.Verb != "retry" || e.Reason != "the ledger is back" || e.Actor != "in-process" {
			t.Fatalf("verb %+v", e.Event)
		}
		if got, want := ledger.words(e.GID), []string{"stalled", "operated", "resumed", "committed"}; !slices.Equal(got, want) {
			t.Fatalf("%s: %v, want %v", e.GID, got, want)
		}
	}
}

// TestCrashBeforeDelivery: what nobody was told before a crash is told after the
// next start, from the store alone, with the ids that it had.
func TestCrashBeforeDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bank
		b.refuses.Store(true)
		deaf, early := &inbox{}, &inbox{}
		deaf.down.Store(true)
		p := start(t, memstore.New(nil), nil,
			notify.Subscriber{Name: "deaf", Sink: deaf}, notify.Subscriber{Name: "early", Sink: early})
		b.attend(t, p)
		p.start(pay, "stalled")
		park(t, p, "parked")
		time.Sleep(threshold + 5*time.Second)
		want := ids(early.of(notify.Stalled, notify.Parked))
		if len(want) != 2 {
			t.Fatalf("the sink that hears got %v, want two alerts", want)
		}
		st := p.crash()
		time.Sleep(time.Minute) // the leases run out

		late := &inbox{}
		p = start(t, st, nil, notify.Subscriber{Name: "late", Sink: late})
		time.Sleep(time.Minute)
		if got := ids(late.of()); !slices.Equal(got, want) {
			t.Errorf("after the crash came %v, want %v", got, want)
		}
		if n := len(deaf.of()); n != 0 {
			t.Errorf("the deaf sink got %d", n)
		}
		for _, s := range p.notifier.Stats() {
			if s.Alerts != 2 || s.Queued != 0 || s.Sent != 2 {
				t.Errorf("stats %+v", s)
			}
		}
	})
}

// park starts a transaction that ends PARKED: an operator turns it back, and the
// bank refuses the undo of what was done.
func park(t *testing.T, p *process, gid string) {
	t.Helper()
	p.start(enrol, gid)
	time.Sleep(time.Second)
	ops := amendsv1.NewOperatorServiceClient(p.Conn())
	if _, err := ops.Abort(t.Context(), &amendsv1.AbortRequest{Gid: gid, Reason: "wrong customer"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
}

func ids(events []arrived) []string {
	var out []string
	for _, e := range events {
		out = append(out, e.Source+" "+e.ID)
	}
	slices.Sort(out)
	return out
}
