package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// fakeCluster is what an engine says of the others.
type fakeCluster struct {
	members            []store.Member
	err                error
	drained, undrained int
}

func (c *fakeCluster) Members() []store.Member { return c.members }

// Refresh finds out which versions they have.
func (c *fakeCluster) Refresh(context.Context) error {
	for i := range c.members {
		c.members[i].Version = "v1"
	}
	return nil
}

func (c *fakeCluster) Drain(context.Context) error {
	c.drained++
	return c.err
}

func (c *fakeCluster) Undrain(context.Context) error {
	c.undrained++
	return c.err
}

// TestMembers: where they are, what they have, and how late they are.
func TestMembers(t *testing.T) {
	now := time.Now()
	st := leased{
		leases: []store.Holding{
			{Lease: store.Lease{Shard: 0}, Owner: "a", ExpiresAt: now.Add(time.Hour)},
			{Lease: store.Lease{Shard: 1}, Owner: "a", ExpiresAt: now.Add(time.Hour)},
			{Lease: store.Lease{Shard: 2}, Owner: "b", ExpiresAt: now.Add(time.Hour)},
		},
		due: []store.Record{{Shard: 0, NextAt: now.Add(-time.Second)}, {Shard: 1, NextAt: now.Add(-time.Minute)}, {Shard: 2, NextAt: now.Add(time.Hour)}},
	}
	c := &fakeCluster{members: []store.Member{{Name: "b", Address: "b:1", StartedAt: now}, {Name: "a", Address: "a:1", Draining: true}}}
	srv, err := api.New(&fakeEngine{}, st, nil, &api.Config{Owner: "b", Cluster: c})
	noErr(t, err)
	client := amendsv1.NewClusterServiceClient(dial(t, srv))
	got, err := client.GetCluster(t.Context(), &amendsv1.GetClusterRequest{})
	noErr(t, err)
	a, b := got.GetMembers()[0], got.GetMembers()[1]
	if a.GetName() != "a" || !a.GetDraining() || a.GetShards() != 2 || !a.GetOldestDueTime().AsTime().Equal(now.Add(-time.Minute).UTC()) {
		t.Errorf("%v", a)
	}
	if b.GetAddress() != "b:1" || b.GetVersion() != "v1" || !b.GetSelf() || b.GetShards() != 1 || b.GetOldestDueTime() != nil || b.GetStartTime() == nil {
		t.Errorf("%v", b)
	}
	list, err := client.ListMembers(t.Context(), &amendsv1.ListMembersRequest{})
	if noErr(t, err); len(list.GetMembers()) != 2 || list.GetMembers()[0].GetAddress() != "a:1" || list.GetMembers()[0].GetShards() != 0 {
		t.Errorf("%v", list)
	}
}

// TestDrainMember: only what makes sense is done, and by whom it may be.
func TestDrainMember(t *testing.T) {
	c := &fakeCluster{members: []store.Member{{Name: "a"}, {Name: "b"}}}
	srv, err := api.New(&fakeEngine{}, leased{}, nil, &api.Config{Owner: "a", Cluster: c})
	noErr(t, err)
	client := amendsv1.NewClusterServiceClient(dial(t, srv))
	drain := func(ctx context.Context, name, reason string) error {
		_, err := client.DrainMember(ctx, &amendsv1.DrainMemberRequest{Name: name, Reason: reason})
		return err
	}
	resp, err := client.DrainMember(t.Context(), &amendsv1.DrainMemberRequest{Name: "a", Reason: "r", ValidateOnly: true})
	if noErr(t, err); resp.GetMember().GetName() != "a" || resp.GetMember().GetDraining() || c.drained != 0 {
		t.Errorf("%v, drained %d times", resp, c.drained)
	}
	noErr(t, drain(t.Context(), "a", "r"))
	wantErr(t, drain(t.Context(), "a", " "), amendsv1.ErrInvalidArgument)
	wantErr(t, drain(t.Context(), "a", strings.Repeat("x", 2000)), amendsv1.ErrInvalidArgument)
	wantErr(t, drain(t.Context(), "", "r"), amendsv1.ErrInvalidArgument)
	wantErr(t, drain(t.Context(), "z", "r"), amendsv1.ErrNotFound)
	wantErr(t, drain(t.Context(), "b", "r"), amendsv1.ErrNotOwner)
	wantErr(t, drain(as(t, "shop"), "a", "r"), amendsv1.ErrPermission)
	_, err = client.UndrainMember(t.Context(), &amendsv1.UndrainMemberRequest{Name: "a", Reason: "r"})
	if noErr(t, err); c.drained != 1 || c.undrained != 1 {
		t.Errorf("drained %d times, undrained %d times", c.drained, c.undrained)
	}
	c.err = engine.ErrAlone
	wantErr(t, drain(t.Context(), "a", "r"), amendsv1.ErrIllegalVerb)
	c.members[1].Draining = true
	wantErr(t, drain(t.Context(), "a", "r"), amendsv1.ErrIllegalVerb)
	if c.drained != 2 {
		t.Errorf("the only one that takes shards was drained")
	}
}
