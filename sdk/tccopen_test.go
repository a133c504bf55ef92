package sdk

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestTCCOwnGID: under a gid of the caller's own there may be a transaction, which
// is found before the function runs.
func TestTCCOwnGID(t *testing.T) {
	f := newFakeTCC()
	if err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, &TCCConfig{GID: "mine"}); err != nil {
		t.Fatal(err)
	}
	f.was(t, beginTrip, firstSeat, secondSeat, bed, "commit")
}

// TestTCCOlderCoordinator: one that does not know of tries that begin is asked to
// begin.
func TestTCCOlderCoordinator(t *testing.T) {
	f := newFakeTCC()
	f.old = true
	if err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, nil); err != nil {
		t.Fatal(err)
	}
	f.was(t, openTrip, beginTrip, firstSeat, secondSeat, bed, "commit")
}

// TestTCCOverloaded: what found no room was not begun, and costs one request.
func TestTCCOverloaded(t *testing.T) {
	f := newFakeTCC()
	f.full = ErrOverloaded.With("full")
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, nil)
	if !errors.Is(err, ErrOverloaded) || errors.Is(err, ErrUnknown) || errors.Is(err, ErrRolledBack) {
		t.Errorf("error %v", err)
	}
	f.was(t, openTrip)
}

// TestTCCNothingTried: it is begun to be decided, as ever.
func TestTCCNothingTried(t *testing.T) {
	f := newFakeTCC()
	if err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(context.Context, *TCC) error { return nil }, nil); err != nil {
		t.Fatal(err)
	}
	f.was(t, beginTrip, "commit")
}

// TestTCCFirstTryUnanswered: it may still come, and then has to find the
// transaction decided: it is begun before it is aborted, after a panic too.
func TestTCCFirstTryUnanswered(t *testing.T) {
	for _, c := range []struct {
		panics bool
		reason string
	}{{true, "the caller's function panicked"}, {false, "no money"}} {
		f := newFakeTCC()
		f.hang = "seat"
		func() {
			defer func() { _ = recover() }()
			err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(ctx context.Context, tc *TCC) error {
				ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				if _, err := Try(ctx, tc, seat, debitReq{Cents: 1}); err == nil {
					t.Error("the try was answered")
				}
				if c.panics {
					panic("oh")
				}
				return errOut
			}, nil)
			if !errors.Is(err, ErrRolledBack) || !errors.Is(err, errOut) {
				t.Errorf("error %v", err)
			}
		}()
		f.was(t, openTrip, firstSeat, beginTrip, "abort "+c.reason)
	}
}
