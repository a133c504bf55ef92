package api

import (
	"context"
	"errors"
	"maps"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/grpc/status"
)

// crossings says what errors of other rooms are called on the wire.
var crossings = []struct {
	from error
	to   *amendsv1.Error
}{
	{store.ErrNotFound, amendsv1.ErrNotFound},
	{store.ErrConflict, amendsv1.ErrNotOwner},
	{store.ErrInUse, amendsv1.ErrUnavailable},
	{store.ErrClosed, amendsv1.ErrUnavailable},
	{tcc.ErrDecided, amendsv1.ErrDecided},
	{tcc.ErrTryPending, amendsv1.ErrTryPending},
	{tcc.ErrBranchExists, amendsv1.ErrBranchConflict},
	{tcc.ErrTooManyBranches, amendsv1.ErrInvalidArgument},
	{txn.ErrIllegal, amendsv1.ErrIllegalVerb},
	// Not the caller's context, which fail has looked at: somebody else's ended.
	{context.Canceled, amendsv1.ErrUnavailable},
	{context.DeadlineExceeded, amendsv1.ErrUnavailable},
}

// fail turns an error into what the RPC returns. What the caller cannot have
// caused is logged.
func (s *Server) fail(ctx context.Context, err error) error {
	var own *amendsv1.Error
	if errors.As(err, &own) {
		return s.tell(ctx, own)
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	for _, c := range crossings {
		if errors.Is(err, c.from) {
			return s.tell(ctx, c.to.With("%v", err))
		}
	}
	s.cfg.Logger.ErrorContext(ctx, "api: internal error", "error", err)
	return s.tell(ctx, amendsv1.ErrInternal.With("%v", err))
}

// tell is an error with gids as the caller knows them: other rooms know keys.
func (s *Server) tell(ctx context.Context, e *amendsv1.Error) error {
	namespace := s.cfg.Caller(ctx).Namespace
	told := *e
	told.Message = wire.Plain(namespace, e.Message)
	told.Metadata = maps.Clone(e.Metadata)
	for k, v := range told.Metadata {
		told.Metadata[k] = wire.Plain(namespace, v)
	}
	return &told
}
