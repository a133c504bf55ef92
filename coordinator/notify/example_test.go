package notify_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/notify"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/coordinator/store/sqlstore"
	"github.com/amends-dev/amends/outbox"
)

// A coordinator whose stalled and parked transactions call a pager. The Notifier
// ends after the coordinator: what happens last is told, too.
func ExampleNew() {
	run := func(ctx context.Context, st store.Store, target, secret string) error {
		pager, err := notify.NewWebhook(target, &notify.WebhookConfig{Secrets: []string{secret}})
		if err != nil {
			return err
		}
		n, err := notify.New(st, []notify.Subscriber{{Name: "pager", Sink: pager, Types: notify.AlertTypes()}}, nil)
		if err != nil {
			return err
		}
		c, err := coordinator.New(ctx, st, &coordinator.Config{
			Observers: []func(store.Record, []store.Event){n.Observe},
		})
		if err != nil {
			return err
		}
		telling, stop := context.WithCancel(context.WithoutCancel(ctx))
		var g errgroup.Group
		g.Go(func() error {
			defer stop()
			return c.Run(ctx)
		})
		g.Go(func() error { return n.Run(telling) })
		return g.Wait()
	}
	_ = run
}

// A coordinator that tells a log what becomes of transactions. The events are
// committed with what they tell of, to an outbox in the same database.
func ExampleLifecycle() {
	run := func(ctx context.Context, dir string) error {
		box := outbox.New(outbox.SQLite, &outbox.Config{Policy: outbox.Shed}) // a full outbox stops no transaction
		st, err := sqlstore.OpenSQLite(ctx, dir, &sqlstore.Config{
			Outbox: func(ctx context.Context, tx *sql.Tx, msgs []store.Message) error {
				for _, m := range msgs {
					err := box.Write(ctx, tx, outbox.Message{
						ID: m.ID, Topic: m.Topic, Key: m.Key, Headers: m.Headers, Body: m.Body, Sheddable: true,
					})
					if err != nil {
						return err
					}
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		c, err := coordinator.New(ctx, st, &coordinator.Config{Announce: notify.Lifecycle{}.Announce})
		if err != nil {
			return err
		}
		return c.Run(ctx)
	}
	_ = run
}

// Whoever receives a webhook checks the signature before anything else, and
// answers 2xx when what it was told is safe.
func ExampleVerify() {
	secret := "…"
	receive := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
		if err != nil || notify.Verify(r.Header.Get(notify.SignatureHeader), body, secret, time.Now(), 5*time.Minute) != nil {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		var events []struct {
			ID, Source, Type string
			Data             notify.Event
		}
		if err := json.Unmarshal(body, &events); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// Open or close an alert for each; know repetitions by Source and ID.
	}
	_ = receive
}
