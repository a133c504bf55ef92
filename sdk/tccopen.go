package sdk

import (
	"context"
	"errors"
	"fmt"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// A transaction under a gid that RunTCC made begins with its first try, which
// spares a request and a commit: nobody else can have begun it. Under the
// caller's own gid there may be one that is decided, so it begins before.

// begin opens the transaction by a request of its own, or finds it open.
func (t *TCC) begin(ctx context.Context, req *amendsv1.BeginTccRequest) (*amendsv1.Transaction, error) {
	resp, err := retrying(ctx, t.client, "begin tcc", req, t.client.rpc.BeginTcc)
	if err != nil {
		return nil, notStarted("begin tcc", req.GetName(), t.gid, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opens = nil
	return resp.GetTransaction(), nil
}

// tryOpen tries a branch, and opens the transaction with it if no try has yet.
func (t *TCC) tryOpen(ctx context.Context, try *amendsv1.TryBranchRequest) ([]byte, error) {
	try.Begin = t.opening()
	resp, err := retrying(ctx, t.client, "try", try, t.client.rpc.TryBranch)
	if try.GetBegin() == nil {
		return resp.GetReply(), err
	}
	t.learn(err)
	if !errors.Is(err, ErrNotFound) {
		return resp.GetReply(), err
	}
	// The coordinator is older than the field.
	if _, err := t.begin(ctx, try.GetBegin()); err != nil {
		return nil, err
	}
	try.Begin = nil
	resp, err = retrying(ctx, t.client, "try", try, t.client.rpc.TryBranch)
	return resp.GetReply(), err
}

// opening is what a try is to open the transaction with, nil when it is open.
func (t *TCC) opening() *amendsv1.BeginTccRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opens != nil {
		t.sent++
	}
	return t.opens
}

// learn notes what the answer to a try that was to open the transaction says
// about that.
func (t *TCC) learn(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil, errors.Is(err, ErrRefused), errors.Is(err, ErrDecided), errors.Is(err, ErrDeadlinePassed):
		t.opens = nil
	case rejected(err):
		t.sent--
	}
}

// ensureOpen has the transaction open before it is decided, unless it is certain
// that it found no room. A try may still be on its way: so it is begun, for that
// try to find it decided.
func (t *TCC) ensureOpen(ctx context.Context, cause error) error {
	t.mu.Lock()
	req, full := t.opens, t.sent == 0 && errors.Is(t.err, ErrOverloaded)
	t.mu.Unlock()
	switch {
	case req == nil:
		return nil
	case full:
		return fmt.Errorf("sdk: begin tcc %q: %w", req.GetName(), cause)
	}
	_, err := t.begin(ctx, req)
	if err == nil || cause == nil {
		return err
	}
	var unknown *UnknownError
	if errors.As(err, &unknown) {
		return because(unknown, cause)
	}
	return fmt.Errorf("%w, after %w", err, cause)
}

// giveBack aborts what a function has left behind that did not return.
func (t *TCC) giveBack(ctx context.Context, reason string) error {
	t.mu.Lock()
	req, sent := t.opens, t.sent
	t.mu.Unlock()
	if req != nil {
		if sent == 0 {
			return nil // nothing was begun
		}
		if _, err := t.begin(ctx, req); err != nil {
			return err
		}
	}
	return t.run().Abort(ctx, reason)
}
