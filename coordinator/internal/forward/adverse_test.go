package forward_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestEndOfRun: what is under way at another member when Run ends was not
// cancelled by its caller, who is to ask another member.
func TestEndOfRun(t *testing.T) {
	asked, owner := pair(t, patience)
	arrived := make(chan struct{})
	owner.start = func(ctx context.Context, _ *amendsv1.StartSagaRequest) (*amendsv1.StartSagaResponse, error) {
		close(arrived)
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	var g errgroup.Group
	g.Go(func() error {
		_, err := asked.ask(t.Context(), &amendsv1.StartSagaRequest{Gid: "g"})
		return err
	})
	<-arrived
	asked.stop()
	if err := g.Wait(); !errors.Is(amendsv1.FromError(err), amendsv1.ErrNotOwner) || status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want ErrNotOwner", err)
	}
}

// TestVerbOfOne: a verb that has no name by which it is known again is not
// repeated, although it may have been carried out.
func TestVerbOfOne(t *testing.T) {
	only := newNode(t, "only", patience)
	only.own(store.Member{Name: "only"})
	only.alone = true
	var ids []string
	only.pause = func(r *amendsv1.PauseRequest) error {
		if ids = append(ids, r.GetRequestId()); len(ids) == 1 {
			return amendsv1.ErrNotOwner
		}
		return nil
	}
	client := amendsv1.NewOperatorServiceClient(only.conn)
	_, err := client.Pause(t.Context(), &amendsv1.PauseRequest{Gid: "g"})
	if !errors.Is(amendsv1.FromError(err), amendsv1.ErrNotOwner) || len(ids) != 1 {
		t.Errorf("%v after it was sent as %q; want ErrNotOwner at once", err, ids)
	}
	ids = nil
	if _, err := client.Pause(t.Context(), &amendsv1.PauseRequest{Gid: "g", RequestId: "mine"}); err != nil || len(ids) != 2 {
		t.Errorf("%v after it was sent as %q; want two times", err, ids)
	}
}

// TestDrainUnreachable: whoever drains a member that is not reached hears that,
// and nothing of shards; where it never will be, at once.
func TestDrainUnreachable(t *testing.T) {
	for _, c := range []struct {
		member store.Member
		code   codes.Code
		says   string
	}{
		{store.Member{Name: "silent"}, codes.FailedPrecondition, "nowhere"},
		{store.Member{Name: "dead", Address: "127.0.0.1:1"}, codes.Unavailable, "127.0.0.1:1"},
	} {
		asked := newNode(t, "asked", 1)
		asked.own(c.member)
		_, err := amendsv1.NewClusterServiceClient(asked.conn).DrainMember(t.Context(), &amendsv1.DrainMemberRequest{Name: c.member.Name})
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "shard") {
			t.Errorf("%s: %v; want %v that says %q", c.member.Name, err, c.code, c.says)
		}
	}
}
