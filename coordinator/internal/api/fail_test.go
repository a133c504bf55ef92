package api_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/tcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What other rooms answer, as a client sees it.
func TestErrorsOfOtherRooms(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error
		code codes.Code
		log  bool
	}{
		{store.ErrNotFound, amendsv1.ErrNotFound, codes.NotFound, false},
		{&store.ConflictError{Shards: []int{3}}, amendsv1.ErrNotOwner, codes.Unavailable, false},
		{store.ErrClosed, amendsv1.ErrUnavailable, codes.Unavailable, false},
		{tcc.ErrDecided, amendsv1.ErrDecided, codes.FailedPrecondition, false},
		{tcc.ErrTryPending, amendsv1.ErrTryPending, codes.FailedPrecondition, false},
		{tcc.ErrBranchExists, amendsv1.ErrBranchConflict, codes.AlreadyExists, false},
		{context.Canceled, amendsv1.ErrUnavailable, codes.Unavailable, false},
		{context.DeadlineExceeded, amendsv1.ErrUnavailable, codes.Unavailable, false},
		{amendsv1.ErrOverloaded.WithRetryAfter(time.Second), amendsv1.ErrOverloaded, codes.ResourceExhausted, false},
		{errors.New("disk \xff on fire"), amendsv1.ErrInternal, codes.Internal, true},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			h := newHost(t, api.Config{})
			h.err = fmt.Errorf("engine: %w", c.err)
			_, err := h.tx.CommitTcc(t.Context(), &amendsv1.CommitTccRequest{Gid: "g"})
			wantErr(t, err, c.want)
			if status.Code(err) != c.code || strings.Contains(h.log.String(), "internal error") != c.log {
				t.Errorf("code %v, log %q", status.Code(err), h.log)
			}
		})
	}
}
