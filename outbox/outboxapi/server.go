package outboxapi

import (
	"context"
	"errors"
	"log/slog"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"

	"github.com/amends-dev/amends/outbox"
)

// The bounds of a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

// Config are the options of a Server. The zero value, and nil, are the defaults.
type Config struct {
	// Actor names who calls, for the record; an empty answer, and nil, are
	// "anonymous".
	Actor func(ctx context.Context) string
	// Logger takes the errors of the database, of which callers learn only that
	// there was one; nil means slog.Default().
	Logger *slog.Logger
}

// Server implements amendsv1.OutboxServiceServer. Safe for concurrent use.
type Server struct {
	amendsv1.UnimplementedOutboxServiceServer
	op  *outbox.Operator
	cfg Config
}

// New makes a server.
func New(op *outbox.Operator, cfg *Config) *Server {
	s := &Server{op: op}
	if cfg != nil {
		s.cfg = *cfg
	}
	if s.cfg.Actor == nil {
		s.cfg.Actor = func(context.Context) string { return "" }
	}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.Default()
	}
	return s
}

// GetOutbox implements OutboxService.
func (s *Server) GetOutbox(ctx context.Context, _ *amendsv1.GetOutboxRequest) (*amendsv1.GetOutboxResponse, error) {
	st, err := s.op.Status(ctx)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return statusOf(&st), nil
}

// ListMessages implements OutboxService.
func (s *Server) ListMessages(ctx context.Context, r *amendsv1.ListMessagesRequest) (*amendsv1.ListMessagesResponse, error) {
	limit, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := positionToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, err := s.op.Waiting(ctx, outbox.WaitingQuery{After: after, Topic: r.GetTopic(), Key: r.GetKey(), Limit: limit})
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	resp := &amendsv1.ListMessagesResponse{}
	for i := range found {
		resp.Messages = append(resp.Messages, messageOf(&found[i]))
	}
	if len(found) == limit {
		resp.NextPageToken = found[limit-1].Position.String()
	}
	return resp, nil
}

// ListDeadLetters implements OutboxService.
func (s *Server) ListDeadLetters(
	ctx context.Context, r *amendsv1.ListDeadLettersRequest,
) (*amendsv1.ListDeadLettersResponse, error) {
	limit, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := numberToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	q := outbox.DeadQuery{After: after, Topic: r.GetTopic(), Key: r.GetKey(), Limit: limit, Brief: true}
	found, err := s.op.DeadLetters(ctx, q)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	resp := &amendsv1.ListDeadLettersResponse{}
	for i := range found {
		resp.DeadLetters = append(resp.DeadLetters, deadOf(&found[i], false))
	}
	if len(found) == limit {
		resp.NextPageToken = tokenOf(found[limit-1].Number)
	}
	return resp, nil
}

// GetDeadLetter implements OutboxService.
func (s *Server) GetDeadLetter(ctx context.Context, r *amendsv1.GetDeadLetterRequest) (*amendsv1.GetDeadLetterResponse, error) {
	found, err := s.op.DeadLetter(ctx, r.GetNumber())
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &amendsv1.GetDeadLetterResponse{DeadLetter: deadOf(&found, true)}, nil
}

// ListBlockedKeys implements OutboxService.
func (s *Server) ListBlockedKeys(
	ctx context.Context, r *amendsv1.ListBlockedKeysRequest,
) (*amendsv1.ListBlockedKeysResponse, error) {
	limit, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := positionToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, err := s.op.Blocked(ctx, after, limit)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	resp := &amendsv1.ListBlockedKeysResponse{}
	for i := range found {
		resp.BlockedKeys = append(resp.BlockedKeys, blockedOf(&found[i]))
	}
	if len(found) == limit {
		resp.NextPageToken = found[limit-1].Position.String()
	}
	return resp, nil
}

// ListOutboxActs implements OutboxService.
func (s *Server) ListOutboxActs(
	ctx context.Context, r *amendsv1.ListOutboxActsRequest,
) (*amendsv1.ListOutboxActsResponse, error) {
	limit, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	before, err := numberToken(r.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, err := s.op.Acts(ctx, before, limit)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	resp := &amendsv1.ListOutboxActsResponse{}
	for i := range found {
		resp.Acts = append(resp.Acts, actOf(&found[i]))
	}
	if len(found) == limit {
		resp.NextPageToken = tokenOf(found[limit-1].Number)
	}
	return resp, nil
}

// fail turns an error into what callers see.
func (s *Server) fail(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, outbox.ErrAct):
		return amendsv1.ErrInvalidArgument.With("%v", err)
	case errors.Is(err, outbox.ErrActConflict):
		return amendsv1.ErrRequestConflict.With("%v", err)
	case errors.Is(err, outbox.ErrNoDeadLetter), errors.Is(err, outbox.ErrNoMessage):
		return amendsv1.ErrNotFound.With("%v", err)
	}
	s.cfg.Logger.ErrorContext(ctx, "outboxapi: database", "error", err)
	return amendsv1.ErrUnavailable.With("the outbox's database cannot serve this just now: see the log")
}
