package api

import (
	"context"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// operator is OperatorService.
type operator struct {
	amendsv1.UnimplementedOperatorServiceServer
	*Server
}

// verbRequest is what the requests of all verbs have.
type verbRequest interface {
	GetGid() string
	GetReason() string
	GetRequestId() string
	GetEtag() string
	GetValidateOnly() bool
}

// act checks a verb's request, which cmd is the rest of, and does it.
func (o *operator) act(ctx context.Context, req verbRequest, cmd Command) (*amendsv1.Transaction, error) {
	c, err := o.caller(ctx)
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	if err := o.checkVerb(c, req, cmd); err != nil {
		return nil, o.fail(ctx, err)
	}
	cmd.GID, cmd.Actor = wire.Key(c.Namespace, req.GetGid()), c.Subject
	cmd.Reason, cmd.RequestID = req.GetReason(), req.GetRequestId()
	cmd.ETag, cmd.ValidateOnly = req.GetEtag(), req.GetValidateOnly()
	tx, err := summary(o.engine.Act(ctx, cmd))
	if err != nil {
		return nil, o.fail(ctx, err)
	}
	return tx, nil
}

// checkVerb reports the first mistake, by its field.
func (o *operator) checkVerb(c Caller, req verbRequest, cmd Command) error {
	for _, err := range []error{
		allowVerb(c, cmd.Verb),
		checkGID(req.GetGid()),
		checkOperatorReason(req.GetReason()),
		checkRequestID(req.GetRequestId()),
		checkBranch(cmd.Verb, cmd.Branch),
		o.checkPayload("reply", len(cmd.Reply), o.cfg.MaxPayload),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// RetryNow calls again at once whatever waits for its next attempt.
func (o *operator) RetryNow(ctx context.Context, req *amendsv1.RetryNowRequest) (*amendsv1.RetryNowResponse, error) {
	tx, err := o.act(ctx, req, Command{Verb: amendsv1.Verb_VERB_RETRY_NOW, Branch: req.GetBranch()})
	if err != nil {
		return nil, err
	}
	return &amendsv1.RetryNowResponse{Transaction: tx}, nil
}

// Abort turns a transaction back.
func (o *operator) Abort(ctx context.Context, req *amendsv1.AbortRequest) (*amendsv1.AbortResponse, error) {
	tx, err := o.act(ctx, req, Command{Verb: amendsv1.Verb_VERB_ABORT})
	if err != nil {
		return nil, err
	}
	return &amendsv1.AbortResponse{Transaction: tx}, nil
}

// Pause sends no more calls.
func (o *operator) Pause(ctx context.Context, req *amendsv1.PauseRequest) (*amendsv1.PauseResponse, error) {
	tx, err := o.act(ctx, req, Command{Verb: amendsv1.Verb_VERB_PAUSE})
	if err != nil {
		return nil, err
	}
	return &amendsv1.PauseResponse{Transaction: tx}, nil
}

// Resume lets a paused transaction go on.
func (o *operator) Resume(ctx context.Context, req *amendsv1.ResumeRequest) (*amendsv1.ResumeResponse, error) {
	tx, err := o.act(ctx, req, Command{Verb: amendsv1.Verb_VERB_RESUME})
	if err != nil {
		return nil, err
	}
	return &amendsv1.ResumeResponse{Transaction: tx}, nil
}

// SkipStep says that what a branch owes now need not happen.
func (o *operator) SkipStep(ctx context.Context, req *amendsv1.SkipStepRequest) (*amendsv1.SkipStepResponse, error) {
	tx, err := o.act(ctx, req, Command{Verb: amendsv1.Verb_VERB_SKIP_STEP, Branch: req.GetBranch()})
	if err != nil {
		return nil, err
	}
	return &amendsv1.SkipStepResponse{Transaction: tx}, nil
}

// CompleteStep says that what a branch owes now was done by hand.
func (o *operator) CompleteStep(ctx context.Context, req *amendsv1.CompleteStepRequest) (
	*amendsv1.CompleteStepResponse, error) {
	cmd := Command{Verb: amendsv1.Verb_VERB_COMPLETE_STEP, Branch: req.GetBranch(), Reply: req.GetReply()}
	tx, err := o.act(ctx, req, cmd)
	if err != nil {
		return nil, err
	}
	return &amendsv1.CompleteStepResponse{Transaction: tx}, nil
}

// FailStep answers a branch's call as though the participant had refused it.
func (o *operator) FailStep(ctx context.Context, req *amendsv1.FailStepRequest) (*amendsv1.FailStepResponse, error) {
	tx, err := o.act(ctx, req, Command{Verb: amendsv1.Verb_VERB_FAIL_STEP, Branch: req.GetBranch()})
	if err != nil {
		return nil, err
	}
	return &amendsv1.FailStepResponse{Transaction: tx}, nil
}

// Abandon ends a transaction as it stands.
func (o *operator) Abandon(ctx context.Context, req *amendsv1.AbandonRequest) (*amendsv1.AbandonResponse, error) {
	tx, err := o.act(ctx, req, Command{Verb: amendsv1.Verb_VERB_ABANDON})
	if err != nil {
		return nil, err
	}
	return &amendsv1.AbandonResponse{Transaction: tx}, nil
}
