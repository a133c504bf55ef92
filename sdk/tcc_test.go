package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amends-dev/amends/tcc"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

var room = tcc.NewAction[debitReq, debitRep]("hotels.room")

// fakeTCC decides as a coordinator would and notes what it was asked.
type fakeTCC struct {
	fakeCoordinator
	mu     sync.Mutex
	state  amendsv1.State
	cause  *amendsv1.Cause
	asked  []string
	refuse string // a branch
	hang   string // a branch whose try is answered when the caller gives up
	block  bool   // the end never comes
	commit error  // what a commit answers
	full   error  // what a try is refused with
	old    bool   // knows no try that begins
	begun  bool
}

func newFakeTCC() *fakeTCC {
	f := &fakeTCC{state: running}
	f.fakeCoordinator.begin = func(_ context.Context, r *amendsv1.BeginTccRequest) (*amendsv1.BeginTccResponse, error) {
		f.note("begin %s %s", r.GetName(), r.GetTimeout().AsDuration())
		f.begun = true
		return &amendsv1.BeginTccResponse{Transaction: tx(f.state, nil)}, nil
	}
	f.fakeCoordinator.try = f.tryBranch
	f.fakeCoordinator.commit = func(context.Context, *amendsv1.CommitTccRequest) (*amendsv1.CommitTccResponse, error) {
		f.note("commit")
		if f.commit != nil {
			return nil, f.commit
		}
		return &amendsv1.CommitTccResponse{}, f.decide(committed, nil)
	}
	f.fakeCoordinator.abort = func(_ context.Context, r *amendsv1.AbortTransactionRequest) (*amendsv1.AbortTransactionResponse, error) {
		f.note("abort %s", r.GetReason())
		return &amendsv1.AbortTransactionResponse{}, f.decide(rolledBack, &amendsv1.Cause{Code: CodeAborted, Message: r.GetReason()})
	}
	f.fakeCoordinator.wait = func(ctx context.Context, _ *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		if f.block {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return &amendsv1.WaitTransactionResponse{Transaction: tx(f.state, f.cause)}, nil
	}
	return f
}

func (f *fakeTCC) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, args...))
}

// heard is what it was asked so far: a request that nobody waits for any more may
// still come.
func (f *fakeTCC) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func (f *fakeTCC) decide(state amendsv1.State, cause *amendsv1.Cause) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != running {
		return ErrDecided
	}
	f.state, f.cause = state, cause
	return nil
}

func (f *fakeTCC) tryBranch(ctx context.Context, r *amendsv1.TryBranchRequest) (*amendsv1.TryBranchResponse, error) {
	if begin := r.GetBegin(); begin != nil {
		f.note("open %s %s", begin.GetName(), begin.GetTimeout().AsDuration())
		if f.old && !f.begun {
			return nil, ErrNotFound.With("no such transaction")
		}
	}
	if f.full != nil {
		return nil, f.full
	}
	f.note("try %s %s %s", r.GetBranch(), r.GetAction(), r.GetPayload())
	switch r.GetBranch() {
	case f.refuse:
		_ = f.decide(rolledBack, &amendsv1.Cause{Branch: r.GetBranch(), Code: CodeRefused, Message: "fully booked"})
		return nil, ErrRefused.With("fully booked").WithMetadata("branch", r.GetBranch())
	case f.hang:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	reply, err := json.Marshal(debitRep{Balance: len(r.GetBranch())})
	return &amendsv1.TryBranchResponse{Reply: reply}, err
}

func (f *fakeTCC) was(t *testing.T, asked ...string) {
	t.Helper()
	if got := f.heard(); !slices.Equal(got, asked) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(asked, "\n"))
	}
}

// trip tries two seats and a named room.
func trip(ctx context.Context, t *TCC) error {
	for range 2 {
		if _, err := Try(ctx, t, seat, debitReq{Cents: 1}); err != nil {
			return err
		}
	}
	rep, err := TryNamed(ctx, t, "bed", room, debitReq{Cents: 2})
	if err == nil && rep.Balance != 3 {
		return fmt.Errorf("reply %+v", rep)
	}
	return err
}

const (
	firstSeat  = `try seat accounts.seat {"From":"","Cents":1}`
	secondSeat = `try seat#2 accounts.seat {"From":"","Cents":1}`
	bed        = `try bed hotels.room {"From":"","Cents":2}`
	beginTrip  = "begin trip 1m0s"
	openTrip   = "open trip 1m0s" // comes with the try after it
)

func TestTCCCommits(t *testing.T) {
	f := newFakeTCC()
	if err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, nil); err != nil {
		t.Fatal(err)
	}
	f.was(t, openTrip, firstSeat, secondSeat, bed, "commit")
}

func TestTCCRefused(t *testing.T) {
	for _, swallow := range []bool{false, true} {
		f := newFakeTCC()
		f.refuse = "seat#2"
		err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(ctx context.Context, tcc *TCC) error {
			if err := trip(ctx, tcc); !swallow {
				return err
			}
			return nil
		}, nil)
		var rb *RolledBackError
		if !errors.As(err, &rb) || rb.Step != "seat#2" || rb.Code != CodeRefused || rb.Reason != "fully booked" ||
			!errors.Is(err, ErrRefused) || !errors.Is(err, ErrRolledBack) {
			t.Errorf("swallow %v: error %v", swallow, err)
		}
		if slices.Contains(f.heard(), "commit") {
			t.Errorf("swallow %v: it was committed", swallow)
		}
	}
}

func TestTCCFunctionFails(t *testing.T) {
	f := newFakeTCC()
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(context.Context, *TCC) error { return errOut }, nil)
	if !errors.Is(err, errOut) || !errors.Is(err, ErrRolledBack) {
		t.Errorf("error %v", err)
	}
	f.was(t, beginTrip, "abort no money")
}

func TestTCCFunctionPanics(t *testing.T) {
	f := newFakeTCC()
	func() {
		defer func() {
			if v := recover(); v != "oh" {
				t.Errorf("recovered %v", v)
			}
		}()
		_ = RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(context.Context, *TCC) error { panic("oh") }, nil)
	}()
	f.was(t) // nothing was begun
}

// TestTCCCancelledCaller ends the caller's context inside the function: the
// second phase still happens, in whichever direction the function said.
func TestTCCCancelledCaller(t *testing.T) {
	for _, commit := range []bool{true, false} {
		f := newFakeTCC()
		ctx, cancel := context.WithCancel(t.Context())
		err := RunTCC(ctx, client(t, &f.fakeCoordinator), "trip", func(ctx context.Context, tcc *TCC) error {
			err := trip(ctx, tcc)
			cancel()
			if err != nil || commit {
				return err
			}
			return ctx.Err()
		}, nil)
		if commit && err != nil || !commit && (!errors.Is(err, ErrRolledBack) || !errors.Is(err, context.Canceled)) {
			t.Errorf("commit %v: error %v", commit, err)
		}
	}
}

func TestTCCTimeoutOfATry(t *testing.T) {
	f := newFakeTCC()
	f.hang = "seat#2"
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, &TCCConfig{Timeout: 100 * time.Millisecond})
	if !errors.Is(err, ErrRolledBack) || !errors.Is(err, ErrDeadlinePassed) {
		t.Errorf("error %v", err)
	}
}

func TestTCCCommitTooLate(t *testing.T) {
	f := newFakeTCC()
	f.commit = ErrDeadlinePassed
	f.cause = &amendsv1.Cause{Code: CodeDeadline}
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(context.Context, *TCC) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.state = rolledBack // by the coordinator, at the deadline
		return nil
	}, nil)
	var rb *RolledBackError
	if !errors.As(err, &rb) || rb.Code != CodeDeadline || !errors.Is(err, ErrDeadlinePassed) {
		t.Errorf("error %v", err)
	}
}

func TestTCCCommitWithTryPending(t *testing.T) {
	f := newFakeTCC()
	f.commit = ErrTryPending
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, nil)
	if !errors.Is(err, ErrRolledBack) || !errors.Is(err, ErrTryPending) {
		t.Errorf("error %v", err)
	}
}

func TestTCCEndTakesTooLong(t *testing.T) {
	f := newFakeTCC()
	f.block = true
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, &TCCConfig{GID: "mine", EndTimeout: 50 * time.Millisecond})
	var u *UnknownError
	if !errors.As(err, &u) || u.GID != "mine" || errors.Is(err, ErrRolledBack) {
		t.Errorf("error %v", err)
	}
}

func TestTCCCommitUnanswered(t *testing.T) {
	f := newFakeTCC()
	f.commit = ErrUnavailable
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", trip, &TCCConfig{EndTimeout: 50 * time.Millisecond})
	if !errors.Is(err, ErrUnknown) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	if slices.ContainsFunc(f.heard(), func(s string) bool { return strings.HasPrefix(s, "abort") }) {
		t.Error("it was aborted after a commit whose outcome is unknown")
	}
}

func TestTCCResumesDecided(t *testing.T) {
	f := newFakeTCC()
	f.state = committed
	err := RunTCC(t.Context(), client(t, &f.fakeCoordinator), "trip", func(context.Context, *TCC) error {
		t.Error("the function ran")
		return nil
	}, &TCCConfig{GID: "mine"})
	if err != nil {
		t.Error(err)
	}
	f.was(t, beginTrip)
}

func TestTCCMisuse(t *testing.T) {
	f := newFakeTCC()
	c := client(t, &f.fakeCoordinator)
	for text, err := range map[string]error{
		"name is empty":       RunTCC(t.Context(), c, "", trip, nil),
		"the function is nil": RunTCC(t.Context(), c, "trip", nil, nil),
		"gid":                 RunTCC(t.Context(), c, "trip", trip, &TCCConfig{GID: "a b"}),
		"end timeout is -1ns": RunTCC(t.Context(), c, "trip", trip, &TCCConfig{EndTimeout: -1}),
		"timeout is -1ns":     RunTCC(t.Context(), c, "trip", trip, &TCCConfig{Timeout: -1}),
	} {
		mustSay(t, err, text)
	}
	f.was(t)
	var kept *TCC
	err := RunTCC(t.Context(), c, "trip", func(ctx context.Context, tcc2 *TCC) error {
		kept = tcc2
		_, err := Try(ctx, tcc2, tcc.Action[debitReq, debitRep]{}, debitReq{})
		return err
	}, nil)
	mustSay(t, err, "make actions with tcc.NewAction")
	if _, err := Try(t.Context(), kept, seat, debitReq{}); !errors.Is(err, ErrDecided) {
		t.Errorf("try after the end: %v", err)
	}
}
