package sdktest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
)

// gated is a saga of one step whose handler waits for the gate.
func gated(t *testing.T, w *sdktest.World, gate chan struct{}) (*sdk.Run, *int) {
	t.Helper()
	wait := saga.NewAction[string, string]("gate.wait")
	s := saga.Define("gated", func(b *saga.Builder, in string) { b.Step("wait", wait.With(in)) })
	db, ran := w.DB("gate"), new(int)
	if _, err := db.Exec(`CREATE TABLE kept (x INTEGER)`); err != nil {
		t.Fatal(err)
	}
	p := sdk.NewParticipant("gate", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
	sdk.HandleSaga(p, wait, func(ctx context.Context, tx *sql.Tx, _ string) (string, error) {
		if _, err := tx.ExecContext(ctx, `INSERT INTO kept VALUES (1)`); err != nil {
			return "", err
		}
		*ran++
		select {
		case <-gate:
			return "", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}, nil)
	w.Attend(p)
	run, err := sdk.Start(t.Context(), w.Client(), s, "", &sdk.StartConfig{GID: "g"})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return run, ran
}

// The coordinator dies while a handler runs. Its answer reaches nobody; the
// next coordinator asks again and gets it from the guard.
func TestCrashDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.New(t, nil)
		gate := make(chan struct{})
		run, ran := gated(t, w, gate)
		if got := w.Trail("g"); got != "started gated: RUNNING\n" {
			t.Fatalf("the trail is %s", got)
		}
		waited := make(chan error, 1)
		go func() { waited <- run.Wait(t.Context()) }()
		synctest.Wait()
		w.Crash() // under the handler and under the caller that waits
		close(gate)
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		if *ran != 1 {
			t.Errorf("the handler ran %d times", *ran)
		}
		if got := w.Trail("g"); got != "started gated: RUNNING\nwait do 1 ok: COMMITTED\n" {
			t.Errorf("the trail is %s", got)
		}
	})
}

// A handler that runs into its timeout loses its transaction, and with it the
// database connection, but not the database.
func TestDatabaseOutlivesItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.New(t, nil)
		gate := make(chan struct{})
		run, ran := gated(t, w, gate)
		time.Sleep(11 * time.Second)
		close(gate)
		if err := run.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		var kept int
		if err := w.DB("gate").QueryRow(`SELECT count(*) FROM kept`).Scan(&kept); err != nil || kept != 1 || *ran != 2 {
			t.Errorf("%d rows after %d runs of the handler, %v", kept, *ran, err)
		}
		if got := w.Trail("g"); !strings.Contains(got, "wait do 1 unknown (") {
			t.Errorf("the trail is %s", got)
		}
	})
}

// With one credit, any that is lost with a call would stop everything.
func TestLostCallsGiveTheirCreditsBack(t *testing.T) {
	for _, f := range []sdktest.Faults{{LoseRequests: 0.6}, {LoseReplies: 0.6}} {
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.New(t, &sdktest.Config{Faults: f})
			db := w.DB("accounts")
			openBank(t, db)
			p := sdk.NewParticipant("accounts", db, outbox.SQLite, &sdk.ParticipantConfig{Concurrency: 1, Logger: quiet})
			handleBank(p)
			w.Attend(p)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			defer cancel()
			for i := range 10 {
				run, err := sdk.Start(ctx, w.Client(), transferSaga, transfer{"alice", "bob", 10}, &sdk.StartConfig{GID: fmt.Sprint(i)})
				if err != nil {
					t.Fatal(err)
				}
				if err := run.Wait(ctx); err != nil {
					t.Fatalf("%+v: %v\n%s", f, err, w.Trail(run.GID()))
				}
			}
		})
	}
}

func TestTCCAcrossACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.New(t, nil)
		db := w.DB("holds")
		if _, err := db.Exec(`CREATE TABLE holds (account TEXT, state TEXT)`); err != nil {
			t.Fatal(err)
		}
		set := func(state string) func(context.Context, *sql.Tx, move, int64) error {
			return func(ctx context.Context, tx *sql.Tx, m move, _ int64) error {
				_, err := tx.ExecContext(ctx, `UPDATE holds SET state = ? WHERE account = ?`, state, m.Account)
				return err
			}
		}
		p := sdk.NewParticipant("holds", db, outbox.SQLite, &sdk.ParticipantConfig{Logger: quiet})
		sdk.HandleTCC(p, hold, func(ctx context.Context, tx *sql.Tx, m move) (int64, error) {
			_, err := tx.ExecContext(ctx, `INSERT INTO holds VALUES (?, 'held')`, m.Account)
			return m.Cents, err
		}, set("confirmed"), set("cancelled"))
		w.Attend(p)
		errNo := errors.New("changed my mind")
		for account, want := range map[string]error{"alice": nil, "bob": errNo} {
			err := sdk.RunTCC(t.Context(), w.Client(), "hold", func(ctx context.Context, tx *sdk.TCC) error {
				if _, err := sdk.Try(ctx, tx, hold, move{account, 5}); err != nil {
					return err
				}
				w.Crash()
				return want
			}, nil)
			if !errors.Is(err, want) {
				t.Errorf("%s: %v", account, err)
			}
		}
		var got string
		if err := db.QueryRow(`SELECT group_concat(account || ' ' || state, ', ' ORDER BY account) FROM holds`).Scan(&got); err != nil ||
			got != "alice confirmed, bob cancelled" {
			t.Errorf("holds are %q, %v", got, err)
		}
	})
}
