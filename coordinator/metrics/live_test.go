package metrics_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/coordinator/store/memstore"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
)

var quiet = slog.New(slog.DiscardHandler)

// bank is a coordinator with one participant, whose credit can be told to fail.
type bank struct {
	t             *testing.T
	c             *coordinator.Coordinator
	client        *sdk.Client
	away          atomic.Bool
	debit, credit saga.Action[string, string]
}

func newBank(t *testing.T) *bank {
	t.Helper()
	st := memstore.New(nil)
	c, err := coordinator.New(t.Context(), st, &coordinator.Config{Logger: quiet, StallAfter: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b := &bank{t: t, c: c, client: sdk.NewClient(c.Conn(), &sdk.ClientConfig{Logger: quiet})}
	b.debit = saga.NewAction[string, string]("bank.debit")
	slow := saga.Retry{Initial: time.Hour, Cap: time.Hour} // only an operator hurries it
	b.credit = saga.NewAction[string, string]("bank.credit").WithRetry(slow)
	ctx, cancel := context.WithCancel(context.Background())
	ended, left := make(chan error, 1), make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	go func() { left <- b.participant().Run(ctx, c.Conn()) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, st.Close()); err != nil {
			t.Error(err)
		}
		<-left // its connection ended with the coordinator
	})
	b.await(`amends_service_instances{service="bank"}`, 1)
	return b
}

func (b *bank) participant() *sdk.Participant {
	b.t.Helper()
	db, err := sql.Open("sqlite", "file:"+b.t.TempDir()+"/bank.db?_pragma=busy_timeout(5000)")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = db.Close() }) // only read by the test
	p := sdk.NewParticipant("bank", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
	undo := func(context.Context, *sql.Tx, string, string) error { return nil }
	sdk.HandleSaga(p, b.debit, func(context.Context, *sql.Tx, string) (string, error) { return "", nil }, undo)
	sdk.HandleSaga(p, b.credit, func(_ context.Context, _ *sql.Tx, to string) (string, error) {
		switch {
		case b.away.Load():
			return "", errors.New("away")
		case to == "nobody":
			return "", sdk.Refuse(errors.New("no such account"))
		}
		return "", nil
	}, undo)
	return p
}

func (b *bank) start(gid, to string) *sdk.Run {
	b.t.Helper()
	transfer := saga.Define("transfer", func(d *saga.Builder, to string) {
		d.Step("debit", b.debit.With("alice"))
		d.Step("credit", b.credit.With(to))
	})
	run, err := sdk.Start(b.t.Context(), b.client, transfer, to, &sdk.StartConfig{GID: gid})
	if err != nil {
		b.t.Fatal(err)
	}
	return run
}

// scrape returns what a fresh collector shows, by series.
func scrape(t *testing.T, src metrics.Source) map[string]float64 {
	t.Helper()
	h, err := metrics.Handler(metrics.New(src, nil))
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("status %d: %s", rec.Code, rec.Body)
	}
	series := map[string]float64{}
	for line := range strings.Lines(rec.Body.String()) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		series[line[:at]] = v
	}
	return series
}

// await waits until a series has a value.
func (b *bank) await(series string, want float64) {
	b.t.Helper()
	var got float64
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		if got = scrape(b.t, b.c)[series]; got == want {
			return
		}
		select {
		case <-b.t.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	b.t.Fatalf("%s is %v, want %v", series, got, want)
}

func expect(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for series, v := range want {
		if n, ok := got[series]; !ok || n != v {
			t.Errorf("%s is %v (there: %v), want %v", series, n, ok, v)
		}
	}
}

func TestFiguresOfAWorkingCoordinator(t *testing.T) {
	b := newBank(t)
	if err := b.start("good", "bob").Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	var back *sdk.RolledBackError
	if err := b.start("bad", "nobody").Wait(t.Context()); !errors.As(err, &back) {
		t.Fatal(err)
	}
	got := scrape(t, b.c)
	expect(t, got, map[string]float64{
		`amends_transactions_started_total{kind="saga"}`:                      2,
		`amends_transactions_started_total{kind="tcc"}`:                       0,
		`amends_transactions_finished_total{kind="saga",state="committed"}`:   1,
		`amends_transactions_finished_total{kind="saga",state="rolled_back"}`: 1,
		`amends_transactions_finished_total{kind="saga",state="abandoned"}`:   0,
		`amends_calls_total{op="do"}`:                                         4,
		`amends_calls_total{op="undo"}`:                                       2,
		`amends_call_retries_total{op="do"}`:                                  0,
		`amends_call_outcomes_total{op="do",outcome="ok"}`:                    3,
		`amends_call_outcomes_total{op="do",outcome="refused"}`:               1,
		`amends_call_outcomes_total{op="undo",outcome="ok"}`:                  2,
		`amends_call_duration_seconds_count{op="do"}`:                         4,
		`amends_call_duration_seconds_bucket{op="undo",le="+Inf"}`:            2,
		`amends_commit_duration_seconds_count`:                                got[`amends_commit_transactions_count`],
		`amends_commit_errors_total`:                                          0,
		`amends_shards_owned`:                                                 got[`amends_shards`],
		`amends_backlog_sample_success`:                                       1,
		`amends_unfinished_transactions{kind="saga",state="running"}`:         0,
		`amends_oldest_unfinished_age_seconds{kind="saga"}`:                   0,
		`amends_operator_verbs_total{verb="retry_now"}`:                       0,
		`amends_starts_refused_total{reason="full"}`:                          0,
		`amends_service_transactions{service="bank"}`:                         0,
		`amends_live_transactions_limit`:                                      100_000,
	})
	if got[`amends_shards`] == 0 || got[`amends_commit_transactions_sum`] < 4 || got[`go_goroutines`] == 0 {
		t.Errorf("shards %v, transitions %v, goroutines %v", got[`amends_shards`], got[`amends_commit_transactions_sum`], got[`go_goroutines`])
	}
}

// A participant fails, everything that waits for it stalls, and a bulk resumes
// it at its pace: all of that shows.
func TestFiguresOfAStallAndItsPacedResume(t *testing.T) {
	const stuck, rate = 12, 20.0
	b := newBank(t)
	b.away.Store(true)
	for i := range stuck {
		b.start(fmt.Sprint("g", i), "bob")
	}
	b.await(`amends_stalled_transactions{kind="saga"}`, stuck)
	b.await(`amends_service_transactions{service="bank"}`, 0) // an hour is not worth the memory
	got := scrape(t, b.c)
	expect(t, got, map[string]float64{
		`amends_unfinished_transactions{kind="saga",state="running"}`:       stuck,
		`amends_call_outcomes_total{op="do",outcome="unknown"}`:             stuck,
		`amends_bulk_transactions_total{result="acted"}`:                    0,
		`amends_transactions_finished_total{kind="saga",state="committed"}`: 0,
	})
	if n := got[`amends_transactions_stalled_total`]; n < stuck { // on a slow machine the debit may stall before
		t.Errorf("%v stalls, want %d at least", n, stuck)
	}
	if age := got[`amends_oldest_unfinished_age_seconds{kind="saga"}`]; age < 0.1 || age > 60 {
		t.Errorf("the oldest is %v s old", age)
	}

	b.away.Store(false)
	begun := time.Now()
	ops := amendsv1.NewOperatorServiceClient(b.c.Conn())
	if _, err := ops.StartBulk(t.Context(), &amendsv1.StartBulkRequest{
		Verb: amendsv1.Verb_VERB_RETRY_NOW, Filter: `participant = "bank"`, Reason: "back", Rate: rate,
	}); err != nil {
		t.Fatal(err)
	}
	b.await(`amends_bulk_transactions_total{result="acted"}`, stuck)
	if took, least := time.Since(begun), time.Duration((stuck-1)/rate*float64(time.Second)); took < least {
		t.Errorf("the bulk took %v, at its rate %v at least", took, least)
	}
	b.await(`amends_transactions_finished_total{kind="saga",state="committed"}`, stuck)
	b.await(`amends_transactions_finished_total{kind="bulk",state="committed"}`, 1)
	expect(t, scrape(t, b.c), map[string]float64{
		`amends_operator_verbs_total{verb="retry_now"}`: stuck,
		`amends_call_retries_total{op="do"}`:            stuck,
		`amends_stalled_transactions{kind="saga"}`:      0,
	})
}
