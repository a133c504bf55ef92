package coordinator

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/internal/engine"
	"github.com/amends-dev/amends/coordinator/internal/forward"
	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
)

// newFront makes what sends requests to the coordinators that they belong to.
func (c *Coordinator) newFront(owner string) *forward.Forwarder {
	return forward.New(c.engine, forward.Config{
		Self: owner,
		Namespace: func(ctx context.Context) string {
			who, _ := auth.FromContext(ctx) // every request comes through a guard
			return who.Namespace
		},
		Forwarded: func(ctx context.Context) bool {
			_, forwarded := auth.ForwardedBy(ctx)
			return forwarded
		},
		Vouch: func(ctx context.Context, to, method string, req proto.Message) (context.Context, error) {
			who, _ := auth.FromContext(ctx) // every request comes through a guard
			if who.Subject == "" {
				who.Subject = api.Address(ctx) // this coordinator's would take its place
			}
			return c.seal.Vouch(ctx, to, method, req, who)
		},
		Private:  auth.Private,
		TLS:      c.cfg.ClusterTLS,
		Patience: max(forward.DefaultPatience, 2*c.cfg.LeaseTTL),
		Logger:   c.cfg.Logger,
	})
}

// remote carries out a verb of a bulk at the coordinator that owns the
// transaction, in the name of who started the bulk.
func (c *Coordinator) remote(ctx context.Context, _ store.Member, cmd engine.Command) error {
	namespace, gid := wire.Split(cmd.GID)
	method, req, role := verbRequest(cmd, gid)
	if req == nil {
		return amendsv1.ErrInternal.With("coordinator: no bulk does %v", cmd.Verb)
	}
	ctx = auth.NewContext(ctx, auth.Caller{
		Identity:  auth.Identity{Subject: cmd.Actor, Grants: []auth.Grant{{Namespace: namespace, Role: role}}},
		Namespace: namespace, Authenticated: c.cfg.Auth.Asks(),
	})
	var came grpc.UnaryHandler = func(context.Context, any) (any, error) {
		return nil, fmt.Errorf("coordinator: the transaction came here: %w", amendsv1.ErrNotOwner)
	}
	_, err := c.front.Do(ctx, method, req, came)
	return amendsv1.FromError(err)
}

// verbRequest is the request for a verb that bulks do, and the role that it
// needs; nil: there is none.
func verbRequest(cmd engine.Command, gid string) (method string, req proto.Message, role amendsv1.Role) {
	role = amendsv1.Role_ROLE_OPERATOR
	switch cmd.Verb {
	case amendsv1.Verb_VERB_RETRY_NOW:
		return amendsv1.OperatorService_RetryNow_FullMethodName,
			&amendsv1.RetryNowRequest{Gid: gid, Reason: cmd.Reason, RequestId: cmd.RequestID}, role
	case amendsv1.Verb_VERB_ABORT:
		return amendsv1.OperatorService_Abort_FullMethodName,
			&amendsv1.AbortRequest{Gid: gid, Reason: cmd.Reason, RequestId: cmd.RequestID}, role
	case amendsv1.Verb_VERB_PAUSE:
		return amendsv1.OperatorService_Pause_FullMethodName,
			&amendsv1.PauseRequest{Gid: gid, Reason: cmd.Reason, RequestId: cmd.RequestID}, role
	case amendsv1.Verb_VERB_RESUME:
		return amendsv1.OperatorService_Resume_FullMethodName,
			&amendsv1.ResumeRequest{Gid: gid, Reason: cmd.Reason, RequestId: cmd.RequestID}, role
	case amendsv1.Verb_VERB_ABANDON:
		return amendsv1.OperatorService_Abandon_FullMethodName,
			&amendsv1.AbandonRequest{Gid: gid, Reason: cmd.Reason, RequestId: cmd.RequestID}, amendsv1.Role_ROLE_BREAK_GLASS
	}
	return "", nil, role
}
