package sdk

import (
	"context"
	"errors"
	"testing"

	"github.com/amends-dev/amends/outbox"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Kills t3: an abort that was turned down is no rollback, and the answer says so at once.
func TestAbortThatFailsIsUnknown(t *testing.T) {
	f := newFakeTCC()
	f.fakeCoordinator.abort = func(context.Context, *amendsv1.AbortTransactionRequest) (*amendsv1.AbortTransactionResponse, error) {
		return nil, ErrInvalidArgument.With("the reason is too long")
	}
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(context.Context, *TCC) error { return errOut },
		&TCCConfig{EndTimeout: patience / 50})
	var u *UnknownError
	if !errors.As(err, &u) || !errors.Is(err, errOut) || !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("error %v, want unknown for both reasons", err)
	}
}

// Kills t4: a commit that came after the decision asks how it went.
func TestCommitAfterTheDecisionAsksForTheEnd(t *testing.T) {
	f := newFakeTCC()
	f.commit = ErrDecided.With("rolling back")
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(context.Context, *TCC) error {
		return f.decide(rolledBack, &amendsv1.Cause{Code: CodeAborted, Message: "an operator"})
	}, nil)
	var rb *RolledBackError
	if !errors.As(err, &rb) || !errors.Is(err, ErrDecided) || rb.Reason != "an operator" {
		t.Errorf("error %v, want rolled back by an operator", err)
	}
	f.was(t, beginTrip, "commit")
}

// Kills s1: only what can never start is poison.
func TestStarterKeepsWhatMayStartLater(t *testing.T) {
	for _, test := range []struct {
		err    error
		poison bool
	}{{ErrOverloaded, false}, {ErrUnavailable, false}, {ErrUnknownAction, false}, {ErrGIDConflict, true}, {ErrTooLarge, true}} {
		c := client(t, &fakeCoordinator{start: func(context.Context, *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
			return nil, test.err
		}})
		errs := NewStarter(c).Publish(t.Context(), []outbox.Message{{ID: "1", Topic: StartTopic, Key: "g", Body: []byte{0x0a, 1, 'g'}}})
		if len(errs) != 1 || !errors.Is(errs[0], test.err) || errors.Is(errs[0], outbox.ErrPoison) != test.poison {
			t.Errorf("%v: results %v, poison wanted: %v", test.err, errs, test.poison)
		}
	}
}
