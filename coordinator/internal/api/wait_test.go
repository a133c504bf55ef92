package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestWait(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	wait := func(d *durationpb.Duration) (amendsv1.State, error) {
		resp, err := h.tx.WaitTransaction(t.Context(), &amendsv1.WaitTransactionRequest{Gid: "g", MaxWait: d})
		return resp.GetTransaction().GetState(), err
	}
	for _, d := range []time.Duration{0, time.Millisecond, 30 * time.Millisecond} { // the state it then has
		began := time.Now()
		state, err := wait(durationpb.New(d))
		if noErr(t, err); state != amendsv1.State_STATE_RUNNING || time.Since(began) < d {
			t.Errorf("%v after %v", state, time.Since(began))
		}
	}
	_, err := wait(durationpb.New(-1))
	wantErr(t, err, amendsv1.ErrInvalidArgument, "max_wait")
	_, err = wait(&durationpb.Duration{Nanos: -1, Seconds: 1})
	wantErr(t, err, amendsv1.ErrInvalidArgument, "max_wait")
	go func() {
		h.awaitSubscriber(t)
		if _, err := h.move(t.Context(), "g", txn.Parked, ""); err != nil {
			t.Error(err)
		}
	}()
	if state, err := wait(nil); err != nil || state != amendsv1.State_STATE_PARKED {
		t.Errorf("%v, %v", state, err)
	}
	_, err = h.tx.WaitTransaction(t.Context(), &amendsv1.WaitTransactionRequest{Gid: "none"})
	wantErr(t, err, amendsv1.ErrNotFound)
}

// TestStartsAndDecisionsWait: they answer with the end, or with the state after
// the time that they were given, and fail for nothing that happens meanwhile.
func TestStartsAndDecisionsWait(t *testing.T) {
	h := newHost(t, api.Config{})
	wait := func(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
	h.start(t, transfer("a"))
	_, err := h.tx.BeginTcc(t.Context(), &amendsv1.BeginTccRequest{Gid: "c", Name: "trip"})
	noErr(t, err)
	for name, ask := range map[string]func(wait *durationpb.Duration) (*amendsv1.Transaction, error){
		"s": func(wait *durationpb.Duration) (*amendsv1.Transaction, error) {
			req := transfer("s")
			req.Wait = wait
			resp, err := h.tx.StartSaga(t.Context(), req)
			return resp.GetTransaction(), err
		},
		"c": func(wait *durationpb.Duration) (*amendsv1.Transaction, error) {
			resp, err := h.tx.CommitTcc(t.Context(), &amendsv1.CommitTccRequest{Gid: "c", Wait: wait})
			return resp.GetTransaction(), err
		},
		"a": func(wait *durationpb.Duration) (*amendsv1.Transaction, error) {
			resp, err := h.tx.AbortTransaction(t.Context(), &amendsv1.AbortTransactionRequest{Gid: "a", Reason: "no", Wait: wait})
			return resp.GetTransaction(), err
		},
	} {
		_, err := ask(wait(-1))
		wantErr(t, err, amendsv1.ErrInvalidArgument, "wait")
		began := time.Now()
		tx, err := ask(wait(20 * time.Millisecond))
		noErr(t, err)
		if s := txn.State(tx.GetState()); s.Finished() || time.Since(began) < 20*time.Millisecond {
			t.Errorf("%s: %v after %v", name, s, time.Since(began))
		}
		go func() {
			h.awaitSubscriber(t)
			h.fail(errors.New("lost"))
		}()
		if tx, err = ask(wait(time.Minute)); err != nil || txn.State(tx.GetState()).Finished() {
			t.Errorf("%s: what is done already fails: %v, %v", name, tx, err)
		}
		h.fail(nil)
		go func() {
			h.awaitSubscriber(t)
			if _, err := h.move(t.Context(), name, txn.Committed, ""); err != nil {
				t.Error(err)
			}
		}()
		if tx, err = ask(wait(time.Minute)); err != nil || tx.GetState() != amendsv1.State_STATE_COMMITTED {
			t.Errorf("%s: %v, %v", name, tx, err)
		}
	}
	req := transfer("s")
	req.Wait = wait(time.Minute)
	if resp, err := h.tx.StartSaga(t.Context(), req); err != nil || resp.GetCreated() || resp.GetTransaction().GetState() != amendsv1.State_STATE_COMMITTED {
		t.Errorf("again: %v, %v", resp, err)
	}
}

// awaitSubscriber polls until somebody listens for a change.
func (h *host) awaitSubscriber(t *testing.T) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		h.mu.Lock()
		n := h.subs
		h.mu.Unlock()
		if n > 0 {
			return
		}
	}
	t.Error("nobody subscribed in 10 s")
}

func TestWaitEndsWithItsCaller(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { h.awaitSubscriber(t); cancel() }()
	_, err := h.tx.WaitTransaction(ctx, &amendsv1.WaitTransactionRequest{Gid: "g"})
	wantErr(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = h.tx.WaitTransaction(ctx, &amendsv1.WaitTransactionRequest{Gid: "g"})
	wantErr(t, err, context.DeadlineExceeded)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		n := h.subs
		h.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d subscriptions were not given back", n)
		}
	}
}
