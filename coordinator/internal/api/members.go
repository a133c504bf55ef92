package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// refreshTimeout bounds how long GetCluster waits for news of the members.
const refreshTimeout = 2 * time.Second

// GetCluster returns the coordinators, how many shards each owns, and how late
// they are. It is the same in every namespace.
func (c *cluster) GetCluster(ctx context.Context, _ *amendsv1.GetClusterRequest) (*amendsv1.GetClusterResponse, error) {
	if _, err := c.caller(ctx); err != nil {
		return nil, c.fail(ctx, err)
	}
	c.refresh(ctx)
	leases, err := c.store.Leases(ctx)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	now := time.Now()
	late, err := c.oldestDue(ctx, len(leases), now)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	return newRoll(c.members(), c.cfg.Owner).whole(leases, late, now), nil
}

// refresh reads who the members are, so that whoever has just drained one sees
// that it is. One that fails leaves what was read last.
func (c *cluster) refresh(ctx context.Context) {
	if c.cfg.Cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if err := c.cfg.Cluster.Refresh(ctx); err != nil {
		c.cfg.Logger.DebugContext(ctx, "api: the members could not be read", "err", err)
	}
}

// members are those of the cluster; a coordinator that knows of none is one
// itself.
func (c *cluster) members() []store.Member {
	var all []store.Member
	if c.cfg.Cluster != nil {
		all = c.cfg.Cluster.Members()
	}
	self := func(m store.Member) bool { return m.Name == c.cfg.Owner }
	if c.cfg.Owner != "" && !slices.ContainsFunc(all, self) {
		all = append(all, store.Member{Name: c.cfg.Owner})
	}
	return all
}

// oldestDue is since when the oldest transaction of a shard is due, of shards
// that have one. It asks once for each of these: the store goes from shard to
// shard, and from old to new in each.
func (c *cluster) oldestDue(ctx context.Context, shards int, now time.Time) (map[int]time.Time, error) {
	due := map[int]time.Time{}
	rest := make([]int, shards)
	for i := range rest {
		rest[i] = i
	}
	for len(rest) > 0 {
		recs, err := c.store.Due(ctx, store.DueQuery{Shards: rest, Until: now, Limit: 1})
		if err != nil || len(recs) == 0 {
			return due, err
		}
		due[recs[0].Shard] = recs[0].NextAt
		rest = rest[slices.Index(rest, recs[0].Shard)+1:]
	}
	return due, nil
}

// roll is the members on the wire.
type roll struct {
	self   string
	all    []*amendsv1.Member
	byName map[string]*amendsv1.Member
}

func newRoll(members []store.Member, self string) *roll {
	r := &roll{self: self, byName: map[string]*amendsv1.Member{}}
	for _, m := range members {
		on := r.of(m.Name)
		on.Address, on.Version = amendsv1.ValidText(m.Address), amendsv1.ValidText(m.Version)
		on.Draining, on.StartTime = m.Draining, wire.Timestamp(m.StartedAt)
	}
	return r
}

// of is the member of a name, a new one if need be.
func (r *roll) of(name string) *amendsv1.Member {
	if r.byName[name] == nil {
		r.byName[name] = &amendsv1.Member{Name: amendsv1.ValidText(name), Self: name == r.self}
		r.all = append(r.all, r.byName[name])
	}
	return r.byName[name]
}

func (r *roll) sorted() []*amendsv1.Member {
	slices.SortFunc(r.all, func(a, b *amendsv1.Member) int { return cmp.Compare(a.Name, b.Name) })
	return r.all
}

// whole sums leases up by owner. A lease that has run out is nobody's.
func (r *roll) whole(leases []store.Holding, late map[int]time.Time, now time.Time) *amendsv1.GetClusterResponse {
	resp := &amendsv1.GetClusterResponse{Shards: int32(len(leases))}
	for _, l := range leases {
		if l.Owner == "" || !l.ExpiresAt.After(now) {
			resp.UnownedShards++
			continue
		}
		m := r.of(l.Owner)
		m.Shards++
		if m.LeaseExpireTime == nil || l.ExpiresAt.Before(m.LeaseExpireTime.AsTime()) {
			m.LeaseExpireTime = wire.Timestamp(l.ExpiresAt)
		}
		if at, due := late[l.Shard]; due && (m.OldestDueTime == nil || at.Before(m.OldestDueTime.AsTime())) {
			m.OldestDueTime = wire.Timestamp(at)
		}
	}
	resp.Members = r.sorted()
	return resp
}

// ListMembers returns the coordinators and where each is reached. It asks no
// store: clients ask it often.
func (c *cluster) ListMembers(ctx context.Context, _ *amendsv1.ListMembersRequest) (*amendsv1.ListMembersResponse, error) {
	if _, err := c.caller(ctx); err != nil {
		return nil, c.fail(ctx, err)
	}
	return &amendsv1.ListMembersResponse{Members: newRoll(c.members(), c.cfg.Owner).sorted()}, nil
}

// DrainMember gives this coordinator's shards to the others. A request about
// another one was forwarded to it.
func (c *cluster) DrainMember(ctx context.Context, req *amendsv1.DrainMemberRequest) (*amendsv1.DrainMemberResponse, error) {
	m, err := c.drain(ctx, req, true)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	return &amendsv1.DrainMemberResponse{Member: m}, nil
}

// UndrainMember lets this coordinator take shards again.
func (c *cluster) UndrainMember(ctx context.Context, req *amendsv1.UndrainMemberRequest) (*amendsv1.UndrainMemberResponse, error) {
	m, err := c.drain(ctx, req, false)
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	return &amendsv1.UndrainMemberResponse{Member: m}, nil
}

// drainRequest is what both requests have.
type drainRequest interface {
	GetName() string
	GetReason() string
	GetValidateOnly() bool
}

func (c *cluster) drain(ctx context.Context, req drainRequest, drained bool) (*amendsv1.Member, error) {
	caller, err := c.caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.checkDrain(caller, req, drained); err != nil {
		return nil, err
	}
	if !req.GetValidateOnly() {
		c.cfg.Logger.WarnContext(ctx, "amends: an operator changes who takes shards", "member", req.GetName(), "drained", drained,
			"actor", caller.Subject, "reason", req.GetReason())
		do := c.cfg.Cluster.Undrain
		if drained {
			do = c.cfg.Cluster.Drain
		}
		if err := do(ctx); errors.Is(err, engine.ErrAlone) {
			return nil, alone(req.GetName())
		} else if err != nil {
			return nil, err
		}
	}
	m := newRoll(c.members(), c.cfg.Owner).of(req.GetName())
	if !req.GetValidateOnly() {
		m.Draining = drained // the others hear of it with the next round
	}
	return m, nil
}

// checkDrain reports the first mistake, by its field.
func (c *cluster) checkDrain(caller Caller, req drainRequest, drained bool) error {
	if caller.Namespace != "" {
		return amendsv1.ErrPermission.With("%s: a coordinator serves all namespaces: an operator of the default one may drain it, in a request without a namespace",
			caller.Subject)
	}
	if strings.TrimSpace(req.GetName()) == "" {
		return invalid("name", "is empty: say which coordinator, as GetCluster names it")
	}
	if err := checkOperatorReason(req.GetReason()); err != nil {
		return err
	}
	known, takers := false, 0
	for _, m := range c.members() {
		known = known || m.Name == req.GetName()
		if m.Name != req.GetName() && !m.Draining {
			takers++
		}
	}
	switch {
	case !known:
		return amendsv1.ErrNotFound.With("coordinator %q: there is none of this name now", req.GetName())
	case req.GetName() != c.cfg.Owner || c.cfg.Cluster == nil:
		return amendsv1.ErrNotOwner.With("coordinator %q is another one, which is not reached from here", req.GetName())
	case drained && takers == 0:
		return alone(req.GetName())
	}
	return nil
}

func alone(name string) error {
	return amendsv1.ErrIllegalVerb.With("coordinator %q is the only one that takes shards: start another one, or undrain one, first", name)
}
