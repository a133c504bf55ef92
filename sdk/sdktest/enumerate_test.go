package sdktest_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
)

var (
	note = saga.NewAction[string, string]("notes.write")
	ship = saga.NewAction[string, string]("notes.ship")
)

// shapes are sagas of every kind, without handlers.
var shapes = map[string]saga.Saga[int]{
	"one step": saga.Define("one", func(b *saga.Builder, _ int) { b.Step("a", note.With("a")) }),
	"chain of three": saga.Define("chain", func(b *saga.Builder, _ int) {
		b.Step("a", note.With("a"))
		b.Step("b", note.With("b")).Attempts(5)
		b.Step("c", note.With("c"))
	}),
	"parallel": saga.Define("parallel", func(b *saga.Builder, _ int) {
		b.Step("a", note.With("a")).After()
		b.Step("b", note.With("b")).After()
		b.Step("c", note.With("c")).After("a", "b")
	}),
	"pivot": saga.Define("pivot", func(b *saga.Builder, _ int) {
		b.Step("a", note.With("a"))
		b.Step("b", ship.With("b")).Pivot()
		b.Step("c", note.With("c")).Retriable()
	}),
}

func TestEnumerateEveryShapeEnds(t *testing.T) {
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			r := sdktest.Enumerate(t, s, 0, nil)
			t.Logf("%+v", r)
			if r.States < 20 || r.Paths < 2*r.States || r.Runs != 0 {
				t.Errorf("it looked at %+v", r)
			}
		})
	}
}

func enumerateFails(t *testing.T, s saga.Saga[transfer], cfg *sdktest.EnumerateConfig, want ...string) {
	t.Helper()
	rec := &recorder{TB: t}
	finished := false
	rec.run(func() {
		sdktest.Enumerate(rec, s, transfer{"alice", "bob", 300}, cfg)
		finished = true
	})
	if finished {
		t.Error("the mistake was not found")
	}
	rec.want(t, want...)
}

func TestEnumerateFindsAStepWithoutUndo(t *testing.T) {
	enumerateFails(t, transferSaga, &sdktest.EnumerateConfig{
		Undoable: func(s saga.Step) bool { return s.Name != "debit" },
	}, `the saga is PARKED for a person to decide, because of step "debit" (compensatable): it has no undo`,
		"\n  1. debit do: ")
}

func TestEnumerateFindsARetriableStepThatRefuses(t *testing.T) {
	rec := &recorder{TB: t}
	rec.run(func() {
		sdktest.Enumerate(rec, shapes["pivot"], 0, &sdktest.EnumerateConfig{Refuses: func(saga.Step) bool { return true }})
	})
	rec.want(t, `because of step "c" (retriable)`, "  1. a do: performed and answered\n  2. b do: performed and answered\n  3. c do: refused")
}

func TestEnumerateIsBounded(t *testing.T) {
	rec := &recorder{TB: t}
	rec.run(func() { sdktest.Enumerate(rec, shapes["parallel"], 0, &sdktest.EnumerateConfig{MaxStates: 10}) })
	rec.want(t, "more than 10 states: raise MaxStates")
	bad := saga.Define("bad", func(*saga.Builder, int) {})
	rec.run(func() { sdktest.Enumerate(rec, bad, 0, nil) })
	rec.want(t, `enumerate "bad": `)
}

// bank sets up real handlers for each path.
func bank(t *testing.T, change func(p *sdk.Participant, db *sql.DB) *sdk.Participant) *sdktest.EnumerateConfig {
	return &sdktest.EnumerateConfig{MaxRuns: 400, Handlers: func(r *sdktest.Rig) {
		db := r.DB("accounts")
		openBank(t, db)
		p := newBank(db, "rig")
		if change != nil {
			p = change(p, db)
		}
		r.Attend(p)
		r.Check(func(committed bool) error {
			a, b := balance(t, db, "alice"), balance(t, db, "bob")
			if committed && (a != 700 || b != 300) || !committed && (a != 1000 || b != 0) {
				return fmt.Errorf("alice has %d and bob has %d", a, b)
			}
			return nil
		})
	}}
}

func TestEnumerateRunsHandlers(t *testing.T) {
	cfg := bank(t, nil)
	cfg.MaxRuns = 150
	r := sdktest.Enumerate(t, transferSaga, transfer{"alice", "bob", 300}, cfg)
	t.Logf("%+v", r)
	if r.Runs < 75 {
		t.Errorf("it looked at %+v", r)
	}
}

// Handlers with the usual mistakes, each of which works on the happy path.
func TestEnumerateFindsBrokenHandlers(t *testing.T) {
	type do = func(ctx context.Context, tx *sql.Tx, m move) (int64, error)
	type undo = func(ctx context.Context, tx *sql.Tx, m move, _ int64) error
	broken := func(do do, undo undo) *sdktest.EnumerateConfig {
		return bank(t, func(_ *sdk.Participant, db *sql.DB) *sdk.Participant {
			p := sdk.NewParticipant("accounts", db, outbox.SQLite, &sdk.ParticipantConfig{Instance: "broken", Logger: quiet})
			sdk.HandleSaga(p, debit, do, undo)
			sdk.HandleSaga(p, credit,
				func(ctx context.Context, tx *sql.Tx, m move) (int64, error) { return add(ctx, tx, m.Account, m.Cents) },
				func(ctx context.Context, tx *sql.Tx, m move, _ int64) error {
					_, err := add(ctx, tx, m.Account, -m.Cents)
					return err
				})
			return p
		})
	}
	right := func(ctx context.Context, tx *sql.Tx, m move) (int64, error) { return add(ctx, tx, m.Account, -m.Cents) }
	t.Run("undo does nothing", func(t *testing.T) {
		enumerateFails(t, transferSaga, broken(right,
			func(context.Context, *sql.Tx, move, int64) error { return nil }),
			"the saga is ROLLED_BACK, and alice has 700", "debit undo: performed and answered")
	})
	t.Run("undo takes again", func(t *testing.T) {
		enumerateFails(t, transferSaga, broken(right,
			func(ctx context.Context, tx *sql.Tx, m move, _ int64) error {
				_, err := add(ctx, tx, m.Account, -m.Cents)
				return err
			}), "the saga is ROLLED_BACK, and alice has 400")
	})
	t.Run("no undo", func(t *testing.T) {
		enumerateFails(t, transferSaga, broken(right, nil), `because of step "debit"`, "no undo")
	})
	t.Run("an effect outside of the transaction", func(t *testing.T) {
		// The handler keeps its balances in a map, and the guard knows nothing of it.
		cents := 0
		cfg := broken(func(context.Context, *sql.Tx, move) (int64, error) { cents -= 300; return 0, nil },
			func(context.Context, *sql.Tx, move, int64) error { cents += 300; return nil })
		handlers := cfg.Handlers
		cfg.Handlers = func(r *sdktest.Rig) {
			cents = 1000
			handlers(r)
			r.Check(func(committed bool) error {
				if committed && cents != 700 || !committed && cents != 1000 {
					return fmt.Errorf("alice has %d", cents)
				}
				return nil
			})
		}
		enumerateFails(t, transferSaga, cfg,
			"the saga is ROLLED_BACK, and alice has 700", "debit do: performed, the participant dies before its commit")
	})
	t.Run("a handler that fails for ever", func(t *testing.T) {
		enumerateFails(t, transferSaga, broken(
			func(context.Context, *sql.Tx, move) (int64, error) { return 0, fmt.Errorf("no such table: acounts") },
			func(context.Context, *sql.Tx, move, int64) error { return nil }),
			`step "debit": do is not answered: no such table: acounts`)
	})
}
