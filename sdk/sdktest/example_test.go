package sdktest_test

import (
	"fmt"
	"testing"

	"github.com/amends-dev/amends/sdk"
	"github.com/amends-dev/amends/sdk/sdktest"
)

// The tests of a service look like this one.
func ExampleNew() {
	_ = func(t *testing.T) {
		w := sdktest.New(t, nil)
		db := w.DB("accounts")
		openBank(t, db)
		w.Attend(newBank(db, "one"))

		run, err := sdk.Start(t.Context(), w.Client(), transferSaga, transfer{"alice", "bob", 300}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Crash()
		if err := run.Wait(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, w.Trail(run.GID()))
		}
	}
}

// Every way that a transfer can take, through the handlers of the service.
func ExampleEnumerate() {
	_ = func(t *testing.T) {
		sdktest.Enumerate(t, transferSaga, transfer{"alice", "bob", 300}, &sdktest.EnumerateConfig{
			Handlers: func(r *sdktest.Rig) {
				db := r.DB("accounts")
				openBank(t, db)
				r.Attend(newBank(db, "one"))
				r.Check(func(committed bool) error {
					if a := balance(t, db, "alice"); committed != (a == 700) {
						return fmt.Errorf("alice has %d", a)
					}
					return nil
				})
			},
		})
	}
}
