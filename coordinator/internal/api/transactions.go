package api

import (
	"context"
	"errors"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// maxWait bounds every wait: a caller that wants longer asks again.
const maxWait = time.Minute

// errFull refuses starts. It is made once, as what it becomes on the wire: under
// overload most of what is done is to refuse.
var errFull = amendsv1.ErrOverloaded.With("as much is under way as can be done; try again in %v", refusedFor).
	WithRetryAfter(refusedFor).GRPCStatus().Err()

// refusedFor is how long whoever finds no room is to stay away.
const refusedFor = time.Second

// transactions is TransactionService.
type transactions struct {
	amendsv1.UnimplementedTransactionServiceServer
	*Server
}

// StartSaga stores a saga durably and answers, after its end if it is to wait.
func (t *transactions) StartSaga(ctx context.Context, req *amendsv1.StartSagaRequest) (
	*amendsv1.StartSagaResponse, error) {
	namespace, err := t.namespace(ctx)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if t.engine.Full(wire.Key(namespace, req.GetGid())) {
		return nil, errFull
	}
	wait, err := waitTime("wait", req.GetWait(), 0)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	key, err := newKey(namespace, req.GetGid(), req.GetLabels())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if err := t.checkSteps(ctx, namespace, req.GetGid(), req.GetSteps()); err != nil {
		return nil, t.fail(ctx, err)
	}
	d, err := wire.SagaDefinition(req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	rec, created, err := t.engine.StartSaga(engine.WithTrace(ctx, wire.Traceparent(req.GetTraceparent())), key, d, req.GetLabels())
	tx, err := summary(t.ended(ctx, wait, rec, err))
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.StartSagaResponse{Transaction: tx, Created: created}, nil
}

// BeginTcc opens a TCC transaction.
func (t *transactions) BeginTcc(ctx context.Context, req *amendsv1.BeginTccRequest) (
	*amendsv1.BeginTccResponse, error) {
	namespace, err := t.namespace(ctx)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if t.engine.Full(wire.Key(namespace, req.GetGid())) {
		return nil, errFull
	}
	key, err := newKey(namespace, req.GetGid(), req.GetLabels())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	d, err := wire.TCCDefinition(req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if err := t.checkCheck(ctx, namespace, req.GetGid(), req); err != nil {
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
// participant's reply. It opens the transaction before, if it is to.
func (t *transactions) TryBranch(ctx context.Context, req *amendsv1.TryBranchRequest) (
	*amendsv1.TryBranchResponse, error) {
	key, err := t.key(ctx, req.GetGid())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	if req.GetBegin() != nil && t.engine.Full(key) {
		return nil, errFull
	}
	namespace, _ := wire.Split(key)
	if err := t.checkTry(namespace, req); err != nil {
		return nil, t.fail(ctx, err)
	}
	branch, err := wire.TCCBranch(req)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	var reply []byte
	if req.GetBegin() == nil {
		reply, err = t.engine.Try(ctx, key, branch)
	} else {
		reply, err = t.beginTry(ctx, key, req, branch)
	}
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.TryBranchResponse{Reply: reply}, nil
}

// beginTry opens a TCC transaction with a branch in it.
func (t *transactions) beginTry(ctx context.Context, key string, try *amendsv1.TryBranchRequest, b tcc.Branch) ([]byte, error) {
	namespace, gid := wire.Split(key)
	req := try.GetBegin()
	if other := req.GetGid(); other != "" && other != gid {
		return nil, amendsv1.ErrInvalidArgument.With("begin.gid is %q, want that of the request, or none", other)
	}
	d, err := wire.TCCDefinition(req)
	if err := errors.Join(checkLabels(req.GetLabels()), err); err != nil {
		return nil, err
	}
	if err := t.checkCheck(ctx, namespace, gid, req); err != nil {
		return nil, err
	}
	return t.engine.BeginTry(engine.WithTrace(ctx, wire.Traceparent(req.GetTraceparent())), key, d, req.GetLabels(), b)
}

// CommitTcc decides to confirm every branch, and waits for that if it is to.
func (t *transactions) CommitTcc(ctx context.Context, req *amendsv1.CommitTccRequest) (
	*amendsv1.CommitTccResponse, error) {
	key, err := t.key(ctx, req.GetGid())
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	wait, err := waitTime("wait", req.GetWait(), 0)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	rec, err := t.engine.Commit(ctx, key)
	tx, err := summary(t.ended(ctx, wait, rec, err))
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.CommitTccResponse{Transaction: tx}, nil
}

// AbortTransaction decides to turn back, and waits for that if it is to.
func (t *transactions) AbortTransaction(ctx context.Context, req *amendsv1.AbortTransactionRequest) (
	*amendsv1.AbortTransactionResponse, error) {
	c, err := t.caller(ctx)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	wait, err := waitTime("wait", req.GetWait(), 0)
	if err := errors.Join(checkGID(req.GetGid()), checkReason(req.GetReason()), err); err != nil {
		return nil, t.fail(ctx, err)
	}
	rec, err := t.engine.Abort(ctx, wire.Key(c.Namespace, req.GetGid()), c.Subject, req.GetReason())
	tx, err := summary(t.ended(ctx, wait, rec, err))
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
	wait, err := waitTime("max_wait", req.GetMaxWait(), maxWait)
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	tx, err := summary(t.wait(ctx, key, wait))
	if err != nil {
		return nil, t.fail(ctx, err)
	}
	return &amendsv1.WaitTransactionResponse{Transaction: tx}, nil
}

// waitTime is how long a request waits, by a field of it: 0 only looks.
func waitTime(field string, d *durationpb.Duration, absent time.Duration) (time.Duration, error) {
	if d == nil {
		return absent, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, amendsv1.ErrInvalidArgument.With("%s: %v", field, err)
	}
	wait := d.AsDuration() // saturates
	if wait < 0 {
		return 0, amendsv1.ErrInvalidArgument.With("%s is %v: it must not be negative", field, wait)
	}
	return min(wait, maxWait), nil
}

// ended is the record of a start or a decision that is durable, as it is at the
// end of the transaction if the request waits for that. What ends the wait early
// is no error: what was asked for is done, and the caller can wait elsewhere.
func (t *transactions) ended(ctx context.Context, wait time.Duration, rec store.Record, err error) (store.Record, error) {
	if err != nil || wait == 0 || settled(rec) {
		return rec, err
	}
	if later, err := t.wait(ctx, rec.GID, wait); err == nil {
		return later, nil
	}
	return rec, nil
}

// settled tells whether there is nothing more to wait for.
func settled(rec store.Record) bool {
	s := txn.State(rec.State)
	return s.Finished() || s == txn.Parked
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
