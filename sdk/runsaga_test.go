package sdk

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// starts is a fake that answers starts in turn, and remembers them. It panics
// when it is asked to wait.
func starts(answers ...func(context.Context) (*amendsv1.Transaction, error)) (*fakeCoordinator, *[]*amendsv1.StartSagaRequest) {
	f, asked := &fakeCoordinator{}, &[]*amendsv1.StartSagaRequest{}
	f.start = func(ctx context.Context, r *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		n := len(*asked)
		*asked = append(*asked, r)
		tx, err := answers[min(n, len(answers)-1)](ctx)
		return &amendsv1.StartSagaResponse{Transaction: tx}, err
	}
	return f, asked
}

func says(state amendsv1.State, cause *amendsv1.Cause, err error) func(context.Context) (*amendsv1.Transaction, error) {
	return func(context.Context) (*amendsv1.Transaction, error) { return tx(state, cause), err }
}

// TestRunSagaInOneRequest: whatever the end is, it comes with the answer to the
// start, which is to come before the caller gives up.
func TestRunSagaInOneRequest(t *testing.T) {
	f, asked := starts(says(committed, nil, nil))
	if err := RunSaga(t.Context(), client(t, f), transfer, debitReq{"alice", 5}, nil); err != nil {
		t.Fatal(err)
	}
	if wait := (*asked)[0].GetWait().AsDuration(); len(*asked) != 1 || wait <= 0 || wait >= rpcTimeout {
		t.Errorf("asked %d times, to wait for %v", len(*asked), wait)
	}
	f, asked = starts(says(rolledBack, &amendsv1.Cause{Branch: "debit", Code: CodeRefused, Message: "no money"}, nil))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := RunSaga(ctx, client(t, f), transfer, debitReq{"alice", 5}, &StartConfig{GID: "mine"})
	var rb *RolledBackError
	if !errors.As(err, &rb) || rb.GID != "mine" || rb.Step != "debit" || rb.Reason != "no money" {
		t.Errorf("error %v", err)
	}
	if wait := (*asked)[0].GetWait().AsDuration(); wait > patience*3/4 {
		t.Errorf("asked to wait for %v of %v", wait, patience)
	}
	f, _ = starts(says(0, nil, ErrOverloaded))
	if err := RunSaga(t.Context(), client(t, f), transfer, debitReq{}, nil); !errors.Is(err, ErrOverloaded) || errors.Is(err, ErrUnknown) {
		t.Errorf("a start that was refused: %v", err)
	}
}

// TestRunSagaWaitsOn: an answer that comes before the end, as one of a member that
// stops or of a coordinator that does not know how to wait, is no end; and what
// was lost on the way is asked again under the same gid.
func TestRunSagaWaitsOn(t *testing.T) {
	f, asked := starts(says(0, nil, ErrUnavailable), says(running, nil, nil))
	waits := 0
	f.wait = func(_ context.Context, r *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		if r.GetGid() != (*asked)[0].GetGid() {
			t.Errorf("waits for %q", r.GetGid())
		}
		waits++
		return &amendsv1.WaitTransactionResponse{Transaction: tx(committed, nil)}, nil
	}
	if err := RunSaga(t.Context(), client(t, f), transfer, debitReq{"alice", 5}, nil); err != nil {
		t.Fatal(err)
	}
	if len(*asked) != 2 || !proto.Equal((*asked)[0], (*asked)[1]) || waits != 1 {
		t.Errorf("asked %v, waited %d times", *asked, waits)
	}
}

// TestRunSagaEndsWithItsContext: the caller is told at once, and by which gid to
// wait for more.
func TestRunSagaEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f, _ := starts(func(rpc context.Context) (*amendsv1.Transaction, error) {
		cancel()
		<-rpc.Done()
		return nil, rpc.Err()
	})
	err := RunSaga(ctx, client(t, f), transfer, debitReq{"alice", 5}, &StartConfig{GID: "mine"})
	var u *UnknownError
	if !errors.As(err, &u) || u.GID != "mine" || u.State != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}

	// Once it is known to have begun, that is told, too.
	f, _ = starts(says(running, nil, nil))
	ctx, cancel = context.WithCancel(t.Context())
	f.wait = func(rpc context.Context, _ *amendsv1.WaitTransactionRequest) (*amendsv1.WaitTransactionResponse, error) {
		cancel()
		<-rpc.Done()
		return nil, rpc.Err()
	}
	err = RunSaga(ctx, client(t, f), transfer, debitReq{"alice", 5}, nil)
	if !errors.As(err, &u) || u.State != stateOf(running) || u.GID == "" {
		t.Errorf("error %v", err)
	}
}

// TestRunTCCEndsInOneRequest: the decision and its end are one request.
func TestRunTCCEndsInOneRequest(t *testing.T) {
	f := newFakeTCC()
	f.fakeCoordinator.wait = nil // would panic
	var wait []time.Duration
	f.fakeCoordinator.commit = func(_ context.Context, r *amendsv1.CommitTccRequest) (*amendsv1.CommitTccResponse, error) {
		wait = append(wait, r.GetWait().AsDuration())
		return &amendsv1.CommitTccResponse{Transaction: tx(committed, nil)}, nil
	}
	f.fakeCoordinator.abort = func(_ context.Context, r *amendsv1.AbortTransactionRequest) (*amendsv1.AbortTransactionResponse, error) {
		wait = append(wait, r.GetWait().AsDuration())
		return &amendsv1.AbortTransactionResponse{Transaction: tx(rolledBack, &amendsv1.Cause{Code: CodeAborted})}, nil
	}
	c := client(t, &f.fakeCoordinator)
	if err := RunTCC(t.Context(), c, "trip", trip, nil); err != nil {
		t.Error(err)
	}
	err := RunTCC(t.Context(), c, "trip", func(context.Context, *TCC) error { return errOut }, nil)
	if !errors.Is(err, ErrRolledBack) || !errors.Is(err, errOut) {
		t.Error(err)
	}
	for _, w := range wait {
		if w <= 0 || w > DefaultEndTimeout*3/4 {
			t.Errorf("waits for %v", wait)
		}
	}
}
