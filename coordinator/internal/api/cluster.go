package api

import (
	"context"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"google.golang.org/protobuf/types/known/durationpb"
)

// cluster is ClusterService.
type cluster struct {
	amendsv1.UnimplementedClusterServiceServer
	*Server
}

// GetOverview returns the figures of the caller's namespace.
func (c *cluster) GetOverview(ctx context.Context, _ *amendsv1.GetOverviewRequest) (
	*amendsv1.GetOverviewResponse, error) {
	resp, err := c.overview(ctx)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	return resp, nil
}

func (c *cluster) overview(ctx context.Context) (*amendsv1.GetOverviewResponse, error) {
	caller, err := c.caller(ctx)
	if err != nil {
		return nil, err
	}
	yes := true
	live := store.Query{Namespace: &caller.Namespace, Unfinished: true}
	paused, stalled := live, live
	paused.Paused, stalled.Stalled = &yes, &yes
	states, err := c.store.Count(ctx, live)
	if err != nil {
		return nil, err
	}
	resp := &amendsv1.GetOverviewResponse{
		Running:     states[uint8(txn.Running)],
		Committing:  states[uint8(txn.Committing)],
		RollingBack: states[uint8(txn.RollingBack)],
		Parked:      states[uint8(txn.Parked)],
	}
	if after := c.engine.StallAfter(); after >= 0 {
		resp.StallAfter = durationpb.New(after)
	}
	resp.StartedRate, resp.CommittedRate, resp.RolledBackRate = c.engine.Rates(caller.Namespace)
	if resp.Paused, err = c.count(ctx, paused); err != nil {
		return nil, err
	}
	if resp.Stalled, err = c.count(ctx, stalled); err != nil {
		return nil, err
	}
	return resp, c.oldest(ctx, live, resp)
}

func (c *cluster) count(ctx context.Context, q store.Query) (int64, error) {
	counts, err := c.store.Count(ctx, q)
	return total(counts), err
}

// oldest adds the oldest transaction that a query selects, if there is one.
func (c *cluster) oldest(ctx context.Context, q store.Query, resp *amendsv1.GetOverviewResponse) error {
	q.OldestFirst = true
	recs, err := c.store.List(ctx, q, nil, 1)
	if err != nil || len(recs) == 0 {
		return err
	}
	_, gid := wire.Split(recs[0].GID)
	resp.OldestGid, resp.OldestCreateTime = amendsv1.ValidText(gid), wire.Timestamp(recs[0].CreatedAt)
	return nil
}

// ListParticipants returns the services of the caller's namespace that are
// connected to this coordinator.
func (c *cluster) ListParticipants(ctx context.Context, _ *amendsv1.ListParticipantsRequest) (
	*amendsv1.ListParticipantsResponse, error) {
	caller, err := c.caller(ctx)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	resp := &amendsv1.ListParticipantsResponse{}
	for _, s := range c.cfg.Services(caller.Namespace) {
		resp.Participants = append(resp.Participants, &amendsv1.Participant{
			Service: amendsv1.ValidText(s.Name), Instances: int32(len(s.Instances)), Actions: validTexts(s.Actions),
			Waiting: int32(s.Waiting), InFlight: int32(s.InFlight),
		})
	}
	return resp, nil
}

// WhoAmI returns the caller's identity, and what it may do.
func (c *cluster) WhoAmI(ctx context.Context, _ *amendsv1.WhoAmIRequest) (*amendsv1.WhoAmIResponse, error) {
	caller, err := c.caller(ctx)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	return &amendsv1.WhoAmIResponse{
		Subject:       amendsv1.ValidText(caller.Subject),
		Namespace:     caller.Namespace,
		Roles:         caller.Roles,
		Namespaces:    validTexts(caller.Namespaces),
		Services:      validTexts(caller.Services),
		Authenticated: caller.Authenticated,
	}, nil
}

func validTexts(texts []string) []string {
	valid := make([]string, len(texts))
	for i, text := range texts {
		valid[i] = amendsv1.ValidText(text)
	}
	return valid
}
