package sdktest_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
)

// both runs a test in virtual and in real time.
func both(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	t.Run("virtual time", func(t *testing.T) { synctest.Test(t, fn) })
	t.Run("real time", fn)
}

func TestTransfer(t *testing.T) {
	both(t, func(t *testing.T) {
		w := sdktest.New(t, nil)
		db := w.DB("accounts")
		openBank(t, db)
		w.Attend(newBank(db, "one"))
		run, err := sdk.Start(t.Context(), w.Client(), transferSaga, transfer{"alice", "bob", 300}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a, b := balance(t, db, "alice"), balance(t, db, "bob"); a != 700 || b != 300 {
			t.Errorf("balances are %d and %d", a, b)
		}
		wantTrail(t, w, run, `
started transfer: RUNNING
debit do 1 ok: RUNNING
credit do 1 ok: COMMITTED
`)
	})
}

func wantTrail(t *testing.T, w *sdktest.World, run *sdk.Run, want string) {
	t.Helper()
	if got := "\n" + w.Trail(run.GID()); got != want {
		t.Errorf("the trail is %s\nwant %s", got, want)
	}
}

func TestRefusal(t *testing.T) {
	both(t, func(t *testing.T) {
		w := sdktest.New(t, nil)
		db := w.DB("accounts")
		openBank(t, db)
		w.Attend(newBank(db, "one"))
		run, err := sdk.Start(t.Context(), w.Client(), transferSaga, transfer{"alice", "nobody", 300}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var rb *sdk.RolledBackError
		if err := run.Wait(t.Context()); !errors.As(err, &rb) || rb.Step != "credit" {
			t.Fatalf("wait says %v", err)
		}
		if a := balance(t, db, "alice"); a != 1000 {
			t.Errorf("alice has %d", a)
		}
		wantTrail(t, w, run, `
started transfer: RUNNING
debit do 1 ok: RUNNING
credit do 1 refused (no such account or not enough money): ROLLING_BACK
credit undo 1 ok: ROLLING_BACK
debit undo 1 ok: ROLLED_BACK
`)
	})
}

// Starts that were acknowledged survive any number of crashes, and the money is
// moved once.
func TestCrash(t *testing.T) {
	both(t, func(t *testing.T) {
		w := sdktest.New(t, nil)
		db := w.DB("accounts")
		openBank(t, db)
		client := w.Client()
		var runs []*sdk.Run
		for i := range 10 {
			run, err := sdk.Start(t.Context(), client, transferSaga, transfer{"alice", "bob", 10},
				&sdk.StartConfig{GID: fmt.Sprint("t", i)})
			if err != nil {
				t.Fatal(err)
			}
			runs = append(runs, run)
			if i == 4 {
				w.Crash() // nobody has attended yet
				w.Attend(newBank(db, "one"))
			}
			if i > 6 {
				w.Crash()
			}
		}
		for _, run := range runs {
			if err := run.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := balance(t, db, "alice"), balance(t, db, "bob"); a != 900 || b != 100 {
			t.Errorf("balances are %d and %d", a, b)
		}
	})
}

func TestParticipantStopsAndAnotherGoesOn(t *testing.T) {
	both(t, func(t *testing.T) {
		w := sdktest.New(t, nil)
		db := w.DB("accounts")
		openBank(t, db)
		stop := w.Attend(newBank(db, "one"))
		stop()
		run, err := sdk.Start(t.Context(), w.Client(), transferSaga, transfer{"alice", "bob", 300}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if state, err := run.State(t.Context()); err != nil || state != txn.Running {
			t.Errorf("without participants: %v, %v", state, err)
		}
		w.Attend(newBank(db, "two"))
		if err := run.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Losses and repetitions in every direction, together with crashes: hours of
// virtual time, and every transfer takes effect once or not at all.
func TestFaults(t *testing.T) {
	for seed := range int64(4) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			w := sdktest.New(t, &sdktest.Config{
				Faults: sdktest.Faults{LoseRequests: 0.2, LoseReplies: 0.2, Repeat: 0.3, Seed: seed}})
			db := w.DB("accounts")
			openBank(t, db)
			w.Attend(newBank(db, "one"))
			w.Attend(newBank(db, "two"))
			client := w.Client()
			var runs []*sdk.Run
			for i := range 60 {
				to := "bob"
				if i%3 == 2 {
					to = "nobody"
				}
				run, err := sdk.Start(t.Context(), client, transferSaga, transfer{"alice", to, 10}, nil)
				if err != nil {
					t.Fatal(err)
				}
				runs = append(runs, run)
				if i%20 == 19 {
					time.Sleep(time.Second)
					w.Crash()
				}
			}
			committed := int64(0)
			for _, run := range runs {
				err := run.Wait(t.Context())
				switch {
				case err == nil:
					committed++
				case !errors.Is(err, sdk.ErrRolledBack):
					t.Errorf("seed %d: %v\n%s", seed, err, w.Trail(run.GID()))
				}
			}
			a, b := balance(t, db, "alice"), balance(t, db, "bob")
			if committed != 40 || b != 10*committed || a+b != 1000 {
				t.Errorf("seed %d: %d committed, balances are %d and %d", seed, committed, a, b)
			}
			if time.Since(start) < 10*time.Second {
				t.Errorf("seed %d: it took %v: nothing was lost", seed, time.Since(start))
			}
		})
	}
}

func TestFaultsAreValidated(t *testing.T) {
	rec := &recorder{TB: t}
	rec.run(func() {
		sdktest.New(rec, &sdktest.Config{Faults: sdktest.Faults{LoseRequests: 1, LoseReplies: -0.1, Repeat: 1.1}})
	})
	rec.want(t, "Faults.LoseRequests is 1", "Faults.LoseReplies is -0.1", "Faults.Repeat is 1.1")
}

func TestTrailOfNobody(t *testing.T) {
	rec := &recorder{TB: t}
	rec.run(func() {
		sdktest.New(rec, nil).Trail("nobody")
	})
	rec.want(t, `no transaction "nobody"`)
}
