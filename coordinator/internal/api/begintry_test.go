package api_test

import (
	"context"
	"errors"
	"testing"

	"github.com/amends-dev/amends/coordinator/internal/api"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/tcc"
)

// TestTryBegins: a try opens the transaction of its own gid, and no other.
func TestTryBegins(t *testing.T) {
	h := newHost(t, api.Config{})
	h.try = func(context.Context, string, tcc.Branch) ([]byte, error) { return nil, nil }
	try := func(begin *amendsv1.BeginTccRequest) error {
		_, err := h.tx.TryBranch(t.Context(), &amendsv1.TryBranchRequest{Gid: "g", Branch: "b", Action: "a.b", Begin: begin})
		return amendsv1.FromError(err)
	}
	for _, wrong := range []*amendsv1.BeginTccRequest{
		{Gid: "other", Name: "trip"}, {Name: "trip", Labels: map[string]string{"A B": "c"}},
	} {
		if err := try(wrong); !errors.Is(err, amendsv1.ErrInvalidArgument) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
	if err := try(&amendsv1.BeginTccRequest{}); !errors.Is(err, amendsv1.ErrInvalidDefinition) {
		t.Errorf("no name: %v", err)
	}
	if err := try(nil); !errors.Is(err, amendsv1.ErrNotFound) {
		t.Errorf("nothing was begun, and yet: %v", err)
	}
	if err := try(&amendsv1.BeginTccRequest{Name: "trip"}); err != nil {
		t.Error(err)
	}
	if err := try(nil); err != nil {
		t.Errorf("after it was begun: %v", err)
	}
}
