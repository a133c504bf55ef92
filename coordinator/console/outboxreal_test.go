package console_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"
)

// TestRealOutbox: a message that the broker refuses for good is found among the
// dead letters, is replayed with a reason, and is seen to be published.
func TestRealOutbox(t *testing.T) {
	t.Parallel() // each in a browser of its own; most of the time it waits
	in := browser(t)
	db, err := sql.Open("sqlite", outbox.SQLiteDSN(filepath.Join(t.TempDir(), "orders.db")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := outbox.Migrate(t.Context(), db, outbox.SQLite); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	box := outbox.New(outbox.SQLite, &outbox.Config{Logger: log})
	var limit atomic.Bool
	limit.Store(true)
	var mu sync.Mutex
	var published []string
	relay(t, outbox.NewRelay(box, db, outbox.PublishFunc(func(_ context.Context, m outbox.Message) error {
		if limit.Load() && m.Key == "order-17" {
			return fmt.Errorf("%w: larger than the broker takes", outbox.ErrPoison)
		}
		mu.Lock()
		defer mu.Unlock()
		published = append(published, m.Key+" "+string(m.Body))
		return nil
	}), &outbox.RelayConfig{Logger: log, PollMax: 100 * time.Millisecond}))
	err = box.Tx(t.Context(), db, func(tx *sql.Tx) error {
		return box.Write(t.Context(), tx, outbox.Message{Topic: "orders", Key: "order-17", Body: []byte(`{"cents":500}`)},
			outbox.Message{Topic: "orders", Key: "order-18"})
	})
	if err != nil {
		t.Fatal(err)
	}
	var conn outboxapi.Local
	amendsv1.RegisterOutboxServiceServer(&conn, outboxapi.New(box.Operator(db),
		&outboxapi.Config{Actor: func(context.Context) string { return "ada" }, Logger: log}))
	amendsv1.RegisterClusterServiceServer(&conn, everybody{})
	h, err := console.New(gatewaytest.New().Serve(t), &console.Config{Outboxes: []console.Outbox{{Name: "orders", Conn: &conn}}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	b := newTab(in, t, server)

	b.visit("/")
	b.sees(".verdict", "outbox orders: 1 dead letter")
	b.click(`.verdict a[href*="deadletters"]`)
	b.click(`tbody a[data-row]`)
	b.sees(".cause", "larger than the broker takes")
	b.sees("pre", `"cents": 500`)
	limit.Store(false)
	b.dialog(`[data-act="replay"]`)
	b.enter("#field-reason", "the limit was raised, ticket 99")
	b.click("dialog button.primary")
	b.sees(".foot", "There are none")
	b.until("it to be published", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(published) == 2 && published[1] == `order-17 {"cents":500}`
	})
	b.visit("/outbox")
	b.sees(".deeds", "the limit was raised, ticket 99")
	b.sees(".deeds", "ada")
	b.sees("main", "Nothing waits.")
	b.visit("/")
	b.sees(".verdict", "All is well")
}

// relay runs one until the test ends.
func relay(t *testing.T, r *outbox.Relay) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// everybody may do everything.
type everybody struct {
	amendsv1.UnimplementedClusterServiceServer
}

func (everybody) WhoAmI(context.Context, *amendsv1.WhoAmIRequest) (*amendsv1.WhoAmIResponse, error) {
	return &amendsv1.WhoAmIResponse{}, nil
}
