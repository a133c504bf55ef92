package outboxapi

import (
	"cmp"
	"context"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"

	"github.com/amends-dev/amends/outbox"
)

// asked is what every request to act has.
type asked interface {
	GetReason() string
	GetRequestId() string
	GetValidateOnly() bool
}

func (s *Server) request(ctx context.Context, r asked) outbox.ActRequest {
	return outbox.ActRequest{
		Actor: cmp.Or(s.cfg.Actor(ctx), "anonymous"), Reason: r.GetReason(),
		RequestID: r.GetRequestId(), ValidateOnly: r.GetValidateOnly(),
	}
}

// done answers an act.
func (s *Server) done(ctx context.Context, a outbox.Act, err error) (*amendsv1.OutboxAct, error) {
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	if a.Number != 0 {
		s.cfg.Logger.InfoContext(ctx, "outboxapi: acted", "verb", a.Verb, "target", a.Target, "messages", a.Messages,
			"actor", a.Actor, "reason", a.Reason, "request_id", a.RequestID)
	}
	return actOf(&a), nil
}

// ReplayDeadLetters implements OutboxService.
func (s *Server) ReplayDeadLetters(
	ctx context.Context, r *amendsv1.ReplayDeadLettersRequest,
) (*amendsv1.ReplayDeadLettersResponse, error) {
	which := outbox.DeadSelection{Numbers: r.GetNumbers(), Topic: r.GetTopic(), Key: r.GetKey()}
	a, err := s.op.Replay(ctx, which, s.request(ctx, r))
	act, err := s.done(ctx, a, err)
	return &amendsv1.ReplayDeadLettersResponse{Act: act}, err
}

// DiscardDeadLetters implements OutboxService.
func (s *Server) DiscardDeadLetters(
	ctx context.Context, r *amendsv1.DiscardDeadLettersRequest,
) (*amendsv1.DiscardDeadLettersResponse, error) {
	which := outbox.DeadSelection{Numbers: r.GetNumbers(), Topic: r.GetTopic(), Key: r.GetKey()}
	a, err := s.op.Discard(ctx, which, s.request(ctx, r))
	act, err := s.done(ctx, a, err)
	return &amendsv1.DiscardDeadLettersResponse{Act: act}, err
}

// SkipMessage implements OutboxService.
func (s *Server) SkipMessage(ctx context.Context, r *amendsv1.SkipMessageRequest) (*amendsv1.SkipMessageResponse, error) {
	at, err := position(r.GetPosition())
	if err != nil {
		return nil, err
	}
	a, err := s.op.Skip(ctx, at, s.request(ctx, r))
	act, err := s.done(ctx, a, err)
	return &amendsv1.SkipMessageResponse{Act: act}, err
}

// ParkKey implements OutboxService.
func (s *Server) ParkKey(ctx context.Context, r *amendsv1.ParkKeyRequest) (*amendsv1.ParkKeyResponse, error) {
	key := r.GetKey()
	if r.GetPosition() != "" {
		if key != "" {
			return nil, amendsv1.ErrInvalidArgument.With("key and position are both given: give one of them")
		}
		at, err := position(r.GetPosition())
		if err != nil {
			return nil, err
		}
		if key, err = s.op.KeyAt(ctx, at); err != nil {
			return nil, s.fail(ctx, err)
		}
	}
	a, err := s.op.Park(ctx, key, s.request(ctx, r))
	act, err := s.done(ctx, a, err)
	return &amendsv1.ParkKeyResponse{Act: act}, err
}
