package api

import (
	"context"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// maxWait bounds WaitTransaction: a caller that wants longer asks again.
const maxWait = time.Minute

// transactions is TransactionService.
type transactions struct {
	amendsv1.UnimplementedTransactionServiceServer
	*Server
}

// StartSaga stores a saga durably and answers.
func (t *transactions) StartSaga(ctx context.Context, req *amendsv1.StartSagaRequest) (
	*amendsv1.StartSagaResponse, error) {
	c, err := t.caller(ctx)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	key, err := newKey(c, req.GetGid(), req.GetLabels())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if err := t.checkSteps(ctx, c.Namespace, req.GetGid(), req.GetSteps()); err != nil {
		return nil, t.fail(ctx, err)
	}
	d, err := wire.SagaDefinition(req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	rec, created, err := t.engine.StartSaga(engine.WithTrace(ctx, wire.Traceparent(req.GetTraceparent())), key, d, req.GetLabels())
	tx, err := summary(rec, err)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.StartSagaResponse{Transaction: tx, Created: created}, nil
}

// BeginTcc opens a TCC transaction.
func (t *transactions) BeginTcc(ctx context.Context, req *amendsv1.BeginTccRequest) (
	*amendsv1.BeginTccResponse, error) {
	c, err := t.caller(ctx)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	key, err := newKey(c, req.GetGid(), req.GetLabels())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	d, err := wire.TCCDefinition(req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if err := t.checkCheck(ctx, c.Namespace, req); err != nil {
		return nil, t.fail(ctx, err)
	}
	rec, created, err := t.engine.BeginTCC(engine.WithTrace(ctx, wire.Traceparent(req.GetTraceparent())), key, d, req.GetLabels())
	tx, err := summary(rec, err)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.BeginTccResponse{Transaction: tx, Created: created}, nil
}

// TryBranch registers a branch durably, calls its try and answers with the
// participant's reply.
func (t *transactions) TryBranch(ctx context.Context, req *amendsv1.TryBranchRequest) (
	*amendsv1.TryBranchResponse, error) {
	key, err := t.key(ctx, req.GetGid())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	namespace, _ := wire.Split(key)
	if err := t.checkTry(namespace, req); err != nil {
		return nil, t.fail(ctx, err)
	}
	branch, err := wire.TCCBranch(req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	reply, err := t.engine.Try(ctx, key, branch)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.TryBranchResponse{Reply: reply}, nil
}

// CommitTcc decides to confirm every branch.
func (t *transactions) CommitTcc(ctx context.Context, req *amendsv1.CommitTccRequest) (
	*amendsv1.CommitTccResponse, error) {
	key, err := t.key(ctx, req.GetGid())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	tx, err := summary(t.engine.Commit(ctx, key))
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.CommitTccResponse{Transaction: tx}, nil
}

// AbortTransaction decides to turn back.
func (t *transactions) AbortTransaction(ctx context.Context, req *amendsv1.AbortTransactionRequest) (
	*amendsv1.AbortTransactionResponse, error) {
	c, err := t.caller(ctx)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if err := errors.Join(checkGID(req.GetGid()), checkReason(req.GetReason())); err != nil {
		return nil, t.fail(ctx, err)
	}
	tx, err := summary(t.engine.Abort(ctx, wire.Key(c.Namespace, req.GetGid()), c.Subject, req.GetReason()))
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.AbortTransactionResponse{Transaction: tx}, nil
}

// WaitTransaction answers when the transaction has finished or is parked, or
// after max_wait with the state it then has.
func (t *transactions) WaitTransaction(ctx context.Context, req *amendsv1.WaitTransactionRequest) (
	*amendsv1.WaitTransactionResponse, error) {
	key, err := t.key(ctx, req.GetGid())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	wait, err := waitTime(req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	tx, err := summary(t.wait(ctx, key, wait))
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.WaitTransactionResponse{Transaction: tx}, nil
}

// waitTime is how long a request waits: 0 only looks.
func waitTime(req *amendsv1.WaitTransactionRequest) (time.Duration, error) {
	if req.GetMaxWait() == nil {
		return maxWait, nil
	}
	if err := req.GetMaxWait().CheckValid(); err != nil {
		return 0, amendsv1.ErrInvalidArgument.With("max_wait: %v", err)
	}
	wait := req.GetMaxWait().AsDuration() // saturates
	if wait < 0 {
		return 0, amendsv1.ErrInvalidArgument.With("max_wait is %v: it must not be negative", wait)
	}
	return min(wait, maxWait), nil
}

func (t *transactions) wait(ctx context.Context, key string, wait time.Duration) (store.Record, error) {
	if wait == 0 {
		return t.engine.Get(ctx, key)
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	rec, err := t.engine.Wait(bounded, key)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil { // our bound, not the caller's
		return t.engine.Get(ctx, key)
	}
	return rec, err
}

// summary is a record without its branches, which costs no decoding.
func summary(rec store.Record, err error) (*amendsv1.Transaction, error) {
	if err != nil {
		return nil, err
	}
	return wire.Transaction(rec, false, false)
}
