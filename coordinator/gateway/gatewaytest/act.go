package gatewaytest

import (
	"context"
	"fmt"
	"slices"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// request is what the verbs' requests have in common.
type request interface {
	GetGid() string
	GetReason() string
	GetRequestId() string
	GetEtag() string
	GetValidateOnly() bool
}

// act checks a verb as a coordinator would, notes it and does the test's script.
func (c *Coordinator) act(ctx context.Context, verb amendsv1.Verb, req request) (*amendsv1.Transaction, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return nil, err
	}
	a := Act{Verb: verb, GID: req.GetGid(), Reason: req.GetReason(), ETag: req.GetEtag(), Request: req.GetRequestId(), Actor: who.Subject}
	if b, ok := req.(interface{ GetBranch() string }); ok {
		a.Branch = b.GetBranch()
	}
	if r, ok := req.(interface{ GetReply() []byte }); ok {
		a.Reply = r.GetReply()
	}
	script, err := c.note(a, req.GetValidateOnly())
	if err == nil && script != nil {
		err = script(a)
	}
	if err != nil {
		return nil, err
	}
	resp, err := c.GetTransaction(ctx, &amendsv1.GetTransactionRequest{Gid: a.GID})
	return resp.GetTransaction(), err
}

func (c *Coordinator) note(a Act, only bool) (script func(Act) error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tx, err := c.find(a.GID)
	switch {
	case err != nil:
		return nil, err
	case a.Reason == "":
		return nil, amendsv1.ErrInvalidArgument.With("reason is empty: say why, for the audit trail")
	case a.ETag != "" && a.ETag != tx.GetEtag():
		return nil, amendsv1.ErrETag.With("the transaction has changed since it was looked at: look again")
	case !slices.Contains(tx.GetVerbs(), a.Verb) && !branchAllows(tx.Transaction, a):
		return nil, amendsv1.ErrIllegalVerb.With("%s is not legal while the transaction is %s; legal are %v",
			a.Verb, tx.GetState(), tx.GetVerbs()).WithMetadata("legal", fmt.Sprint(tx.GetVerbs()))
	case only:
		return nil, nil
	}
	c.acts = append(c.acts, a)
	return c.onAct, nil
}

func branchAllows(tx *amendsv1.Transaction, a Act) bool {
	return slices.ContainsFunc(tx.GetBranches(), func(b *amendsv1.Branch) bool {
		return b.GetName() == a.Branch && slices.Contains(b.GetVerbs(), a.Verb)
	})
}

// RetryNow implements OperatorService.
func (c *Coordinator) RetryNow(ctx context.Context, req *amendsv1.RetryNowRequest) (*amendsv1.RetryNowResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_RETRY_NOW, req)
	return &amendsv1.RetryNowResponse{Transaction: tx}, err
}

// Abort implements OperatorService.
func (c *Coordinator) Abort(ctx context.Context, req *amendsv1.AbortRequest) (*amendsv1.AbortResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_ABORT, req)
	return &amendsv1.AbortResponse{Transaction: tx}, err
}

// Pause implements OperatorService.
func (c *Coordinator) Pause(ctx context.Context, req *amendsv1.PauseRequest) (*amendsv1.PauseResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_PAUSE, req)
	return &amendsv1.PauseResponse{Transaction: tx}, err
}

// Resume implements OperatorService.
func (c *Coordinator) Resume(ctx context.Context, req *amendsv1.ResumeRequest) (*amendsv1.ResumeResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_RESUME, req)
	return &amendsv1.ResumeResponse{Transaction: tx}, err
}

// SkipStep implements OperatorService.
func (c *Coordinator) SkipStep(ctx context.Context, req *amendsv1.SkipStepRequest) (*amendsv1.SkipStepResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_SKIP_STEP, req)
	return &amendsv1.SkipStepResponse{Transaction: tx}, err
}

// CompleteStep implements OperatorService.
func (c *Coordinator) CompleteStep(ctx context.Context, req *amendsv1.CompleteStepRequest) (*amendsv1.CompleteStepResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_COMPLETE_STEP, req)
	return &amendsv1.CompleteStepResponse{Transaction: tx}, err
}

// FailStep implements OperatorService.
func (c *Coordinator) FailStep(ctx context.Context, req *amendsv1.FailStepRequest) (*amendsv1.FailStepResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_FAIL_STEP, req)
	return &amendsv1.FailStepResponse{Transaction: tx}, err
}

// Abandon implements OperatorService.
func (c *Coordinator) Abandon(ctx context.Context, req *amendsv1.AbandonRequest) (*amendsv1.AbandonResponse, error) {
	tx, err := c.act(ctx, amendsv1.Verb_VERB_ABANDON, req)
	return &amendsv1.AbandonResponse{Transaction: tx}, err
}

// StartBulk implements OperatorService. The bulk stays running: ChangeBulk
// moves it.
func (c *Coordinator) StartBulk(ctx context.Context, req *amendsv1.StartBulkRequest) (*amendsv1.StartBulkResponse, error) {
	who, err := c.caller(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all, err := c.selected(req.GetFilter())
	switch {
	case err != nil:
		return nil, err
	case req.GetFilter() == "":
		return nil, amendsv1.ErrInvalidArgument.With("filter is empty: say what to act on")
	case req.GetReason() == "":
		return nil, amendsv1.ErrInvalidArgument.With("reason is empty: say why, for the audit trail")
	}
	now := timestamppb.New(time.Now())
	b := &amendsv1.Bulk{
		Id: req.GetRequestId(), Verb: req.GetVerb(), Filter: req.GetFilter(), Rate: req.GetRate(), Reason: req.GetReason(),
		Actor: who.Subject, State: amendsv1.BulkState_BULK_STATE_RUNNING, CreateTime: now, UpdateTime: now,
	}
	if req.GetValidateOnly() {
		b.Acted = int64(len(all))
		return &amendsv1.StartBulkResponse{Bulk: b}, nil
	}
	c.bulks = append(c.bulks, b)
	return &amendsv1.StartBulkResponse{Bulk: b}, nil
}

// ChangeBulk changes the newest bulk.
func (c *Coordinator) ChangeBulk(change func(*amendsv1.Bulk)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.bulks[len(c.bulks)-1])
}

// GetBulk implements OperatorService.
func (c *Coordinator) GetBulk(_ context.Context, req *amendsv1.GetBulkRequest) (*amendsv1.GetBulkResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.bulks {
		if b.GetId() == req.GetId() {
			return &amendsv1.GetBulkResponse{Bulk: proto.CloneOf(b)}, nil
		}
	}
	return nil, amendsv1.ErrNotFound.With("there is no bulk %q", req.GetId())
}

// ListBulks implements OperatorService, in one page.
func (c *Coordinator) ListBulks(context.Context, *amendsv1.ListBulksRequest) (*amendsv1.ListBulksResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &amendsv1.ListBulksResponse{}
	for _, b := range slices.Backward(c.bulks) {
		resp.Bulks = append(resp.Bulks, proto.CloneOf(b))
	}
	return resp, nil
}

// CancelBulk implements OperatorService.
func (c *Coordinator) CancelBulk(ctx context.Context, req *amendsv1.CancelBulkRequest) (*amendsv1.CancelBulkResponse, error) {
	c.mu.Lock()
	for _, b := range c.bulks {
		if b.GetId() == req.GetId() {
			b.State, b.FinishTime = amendsv1.BulkState_BULK_STATE_CANCELLED, timestamppb.New(time.Now())
		}
	}
	c.mu.Unlock()
	resp, err := c.GetBulk(ctx, &amendsv1.GetBulkRequest{Id: req.GetId()})
	return &amendsv1.CancelBulkResponse{Bulk: resp.GetBulk()}, err
}
