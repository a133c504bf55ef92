package api

import (
	"context"
	"strings"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// Caller is who asks, in which namespace, and what they may do there. That the
// RPC itself is allowed to their roles was seen to before a handler runs.
type Caller struct {
	Subject       string // the actor of audit events; empty: the address they call from
	Namespace     string // of this request; empty: the default one
	Roles         []amendsv1.Role
	Namespaces    []string // in which they have a role; "*" stands for all
	Services      []string // of a service: those it may answer for; "*" stands for all
	Authenticated bool
}

// anybody is the Caller where nobody is asked who they are: they may do
// everything, in the namespace that they name.
func anybody(ctx context.Context) Caller {
	return Caller{
		// Two names are none: the comma is not allowed in one.
		Namespace: strings.Join(metadata.ValueFromIncomingContext(ctx, amendsv1.NamespaceHeader), ","),
		Roles: []amendsv1.Role{amendsv1.Role_ROLE_VIEWER, amendsv1.Role_ROLE_OPERATOR,
			amendsv1.Role_ROLE_BREAK_GLASS, amendsv1.Role_ROLE_SERVICE},
		Namespaces: []string{"*"},
		Services:   []string{"*"},
	}
}

// caller says who asks. An illegal namespace is ErrInvalidArgument.
func (s *Server) caller(ctx context.Context) (Caller, error) {
	c := s.cfg.Caller(ctx)
	if err := checkNamespace(c.Namespace); err != nil {
		return Caller{}, err
	}
	if c.Subject == "" {
		c.Subject = Address(ctx)
	}
	return c, nil
}

// namespace is that of a request which does not matter who makes it.
func (s *Server) namespace(ctx context.Context) (string, error) {
	namespace := s.cfg.Caller(ctx).Namespace
	return namespace, checkNamespace(namespace)
}

func checkNamespace(namespace string) error {
	if err := amendsv1.CheckNamespace(namespace); err != nil {
		return amendsv1.ErrInvalidArgument.With("%s: %v", amendsv1.NamespaceHeader, err).
			WithMetadata("field", amendsv1.NamespaceHeader)
	}
	return nil
}

// key is the key of the caller's gid.
func (s *Server) key(ctx context.Context, gid string) (string, error) {
	namespace, err := s.namespace(ctx)
	if err != nil {
		return "", err
	}
	return wire.Key(namespace, gid), checkGID(gid)
}

// Address is where a caller calls from: without authentication it is all that
// is known of them. A gateway in this process names its own peer last.
func Address(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return "unknown"
	}
	if all := metadata.ValueFromIncomingContext(ctx, "x-forwarded-for"); len(all) > 0 && p.Addr.Network() == "bufconn" {
		from := strings.Split(all[len(all)-1], ",")
		return strings.TrimSpace(from[len(from)-1])
	}
	return p.Addr.String()
}
