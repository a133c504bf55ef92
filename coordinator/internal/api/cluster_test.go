package api_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/dispatch"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"google.golang.org/protobuf/proto"
)

func TestOverview(t *testing.T) {
	h := newHost(t, api.Config{})
	empty, err := h.cluster.GetOverview(t.Context(), &amendsv1.GetOverviewRequest{})
	noErr(t, err)
	if empty.GetOldestGid() != "" || empty.GetOldestCreateTime() != nil || empty.GetRunning() != 0 {
		t.Errorf("%v", empty)
	}
	for i, s := range []txn.State{
		txn.Committed, txn.Running, txn.Running, txn.Running, txn.Committing, txn.Committing, txn.RollingBack, txn.Parked,
		txn.RolledBack, txn.Abandoned,
	} {
		gid := fmt.Sprint("g", i)
		h.start(t, transfer(gid))
		rec, err := h.Get(t.Context(), gid)
		noErr(t, err)
		rec.State, rec.Paused, rec.Stalled = uint8(s), i == 2 || i == 8, i < 6
		_, err = h.write(t.Context(), rec)
		noErr(t, err)
	}
	got, err := h.cluster.GetOverview(t.Context(), &amendsv1.GetOverviewRequest{})
	noErr(t, err)
	if got.GetRunning() != 3 || got.GetCommitting() != 2 || got.GetRollingBack() != 1 || got.GetParked() != 1 ||
		got.GetPaused() != 1 || got.GetStalled() != 5 || got.GetStallAfter().AsDuration() != time.Minute || got.GetOldestGid() != "g1" ||
		!got.GetOldestCreateTime().AsTime().Equal(time.Date(2026, 11, 1, 0, 0, 2, 0, time.UTC)) ||
		got.GetStartedRate() != 0 || got.GetCommittedRate() != 2 || got.GetRolledBackRate() != 3 {
		t.Errorf("%v", got)
	}
}

// neverStalls is an engine by which nothing counts as stalled.
type neverStalls struct{ *fakeEngine }

func (neverStalls) StallAfter() time.Duration { return -1 }

func TestOverviewWithoutThreshold(t *testing.T) {
	h := newHost(t, api.Config{})
	srv, err := api.New(neverStalls{h.fakeEngine}, h.st, nil, nil)
	noErr(t, err)
	got, err := amendsv1.NewClusterServiceClient(dial(t, srv)).GetOverview(t.Context(), &amendsv1.GetOverviewRequest{})
	if noErr(t, err); got.GetStallAfter() != nil {
		t.Errorf("%v", got)
	}
}

// leased is a store with leases to look at.
type leased struct {
	store.Store
	leases []store.Holding
	due    []store.Record // by shard, one for each
	err    error
}

func (l leased) Due(_ context.Context, q store.DueQuery) ([]store.Record, error) {
	for _, rec := range l.due {
		if slices.Contains(q.Shards, rec.Shard) && rec.NextAt.Before(q.Until) {
			return []store.Record{rec}, nil
		}
	}
	return nil, nil
}

func (l leased) Leases(context.Context) ([]store.Holding, error) { return l.leases, l.err }

func TestCluster(t *testing.T) {
	at := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	st := leased{leases: []store.Holding{
		{Owner: "b", ExpiresAt: at.Add(2)}, {Owner: "a", ExpiresAt: at}, {Owner: "b", ExpiresAt: at}, {},
		{Owner: "dead", ExpiresAt: time.Now().Add(-time.Second)}, {Owner: "b", ExpiresAt: at.Add(time.Hour)},
	}}
	for self, want := range map[string]string{"": "a 1, b 3, ", "b": "a 1, b 3 self, ", "dead": "a 1, b 3, dead 0 self, "} {
		srv, err := api.New(&fakeEngine{}, st, nil, &api.Config{Owner: self})
		noErr(t, err)
		resp, err := amendsv1.NewClusterServiceClient(dial(t, srv)).GetCluster(t.Context(), &amendsv1.GetClusterRequest{})
		noErr(t, err)
		got := ""
		for _, m := range resp.GetMembers() {
			got += fmt.Sprintf("%s %d", m.GetName(), m.GetShards())
			if m.GetSelf() {
				got += " self"
			}
			got += ", "
			if (m.GetShards() > 0) != (m.GetLeaseExpireTime() != nil) || m.GetShards() > 0 && !m.GetLeaseExpireTime().AsTime().Equal(at) {
				t.Errorf("%v ends at %v", m, m.GetLeaseExpireTime().AsTime())
			}
		}
		if got != want || resp.GetShards() != 6 || resp.GetUnownedShards() != 2 {
			t.Errorf("%q: %s in %v", self, got, resp)
		}
	}
	st.err = store.ErrClosed
	srv, err := api.New(&fakeEngine{}, st, nil, nil)
	noErr(t, err)
	_, err = amendsv1.NewClusterServiceClient(dial(t, srv)).GetCluster(t.Context(), &amendsv1.GetClusterRequest{})
	wantErr(t, err, amendsv1.ErrUnavailable)
}

func TestParticipants(t *testing.T) {
	h := newHost(t, api.Config{Services: func(namespace string) []dispatch.Service {
		return []dispatch.Service{
			{Name: "accounts" + namespace, Actions: []string{"a.b", "a.c"}, Instances: make([]dispatch.Instance, 3), Waiting: 4, InFlight: 5},
			{Name: "\xff"},
		}
	}})
	got, err := h.cluster.ListParticipants(t.Context(), &amendsv1.ListParticipantsRequest{})
	noErr(t, err)
	want := &amendsv1.ListParticipantsResponse{Participants: []*amendsv1.Participant{
		{Service: "accounts", Instances: 3, Actions: []string{"a.b", "a.c"}, Waiting: 4, InFlight: 5}, {Service: `\xff`},
	}}
	if !proto.Equal(got, want) {
		t.Errorf("%v", got)
	}
	got, err = newHost(t, api.Config{}).cluster.ListParticipants(t.Context(), &amendsv1.ListParticipantsRequest{})
	if noErr(t, err); len(got.GetParticipants()) != 0 {
		t.Errorf("%v", got)
	}
}

func TestWhoAmI(t *testing.T) {
	everything := []amendsv1.Role{
		amendsv1.Role_ROLE_VIEWER, amendsv1.Role_ROLE_OPERATOR, amendsv1.Role_ROLE_BREAK_GLASS, amendsv1.Role_ROLE_SERVICE,
	}
	got, err := newHost(t, api.Config{}).cluster.WhoAmI(as(t, "acme"), &amendsv1.WhoAmIRequest{})
	noErr(t, err)
	if got.GetAuthenticated() || got.GetNamespace() != "acme" || !slices.Equal(got.GetRoles(), everything) ||
		!slices.Equal(got.GetNamespaces(), []string{"*"}) || !slices.Equal(got.GetServices(), []string{"*"}) {
		t.Errorf("%v", got)
	}
	h := newHost(t, api.Config{Caller: func(context.Context) api.Caller {
		return api.Caller{
			Subject: "shop", Namespace: "acme", Roles: []amendsv1.Role{amendsv1.Role_ROLE_SERVICE}, Namespaces: []string{"acme", "test"},
			Services: []string{"accounts"}, Authenticated: true,
		}
	}})
	got, err = h.cluster.WhoAmI(as(t, "other"), &amendsv1.WhoAmIRequest{})
	noErr(t, err)
	want := &amendsv1.WhoAmIResponse{
		Subject: "shop", Namespace: "acme", Roles: []amendsv1.Role{amendsv1.Role_ROLE_SERVICE}, Namespaces: []string{"acme", "test"},
		Services: []string{"accounts"}, Authenticated: true,
	}
	if !proto.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
