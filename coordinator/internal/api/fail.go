package api

import (
	"context"
	"errors"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/grpc/status"
)

// crossings says what errors of other rooms are called on the wire.
var crossings = []struct {
	from error
	to   *amendsv1.Error
}{
	{store.ErrNotFound, amendsv1.ErrNotFound},
	{store.ErrConflict, amendsv1.ErrUnavailable},
	{store.ErrInUse, amendsv1.ErrUnavailable},
	{store.ErrClosed, amendsv1.ErrUnavailable},
	{tcc.ErrDecided, amendsv1.ErrDecided},
	{tcc.ErrTryPending, amendsv1.ErrTryPending},
	{tcc.ErrBranchExists, amendsv1.ErrBranchConflict},
	{tcc.ErrTooManyBranches, amendsv1.ErrInvalidArgument},
	// Not the caller's context, which fail has looked at: somebody else's ended.
	{context.Canceled, amendsv1.ErrUnavailable},
	{context.DeadlineExceeded, amendsv1.ErrUnavailable},
}

// fail turns an error into what the RPC returns. What the caller cannot have
// caused is logged.
func (s *Server) fail(ctx context.Context, err error) error {
	var own *amendsv1.Error
	if errors.As(err, &own) {
		return own
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	for _, c := range crossings {
		if errors.Is(err, c.from) {
			return c.to.With("%v", err)
		}
	}
	s.cfg.Logger.ErrorContext(ctx, "api: internal error", "error", err)
	return amendsv1.ErrInternal.With("%v", err)
}
