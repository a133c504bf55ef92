package auth

import (
	"context"
	"slices"

	"google.golang.org/grpc/metadata"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// inProcess is the subject of whoever calls from the coordinator's own process.
const inProcess = "in-process"

type callerKey struct{}

// NewContext returns a context that carries a caller. A Guard does it for every
// RPC that it lets in.
func NewContext(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// FromContext returns who calls, and false outside of an RPC that a Guard let
// in. Where nobody is asked, the caller has every role and an empty subject.
func FromContext(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// MayAnswerFor tells whether the caller may take a service's calls: nil, or
// amendsv1.ErrPermission.
func MayAnswerFor(ctx context.Context, service string) error {
	c, ok := FromContext(ctx)
	if !ok {
		return amendsv1.ErrUnauthenticated.With("who answers for %q is not known", service)
	}
	return c.mayAnswerFor(service)
}

func (c Caller) mayAnswerFor(service string) error {
	if slices.Contains(c.Services, service) || slices.Contains(c.Services, All) {
		return nil
	}
	return amendsv1.ErrPermission.With("%s may not answer for service %q: its credentials do not name it", c.Subject, service)
}

// everybody has every role in every namespace.
func everybody(subject string) *Identity {
	id := &Identity{Subject: subject, Services: []string{All}}
	for _, role := range roleNames {
		id.Grants = append(id.Grants, Grant{Namespace: All, Role: role})
	}
	slices.SortFunc(id.Grants, func(a, b Grant) int { return int(a.Role - b.Role) })
	return id
}

// namespaceOf is the namespace that a request of id is for.
func namespaceOf(ctx context.Context, id *Identity) (string, error) {
	asked := metadata.ValueFromIncomingContext(ctx, amendsv1.NamespaceHeader)
	switch {
	case len(asked) > 1:
		return "", amendsv1.ErrInvalidArgument.With("metadata %s is there %d times: send one", amendsv1.NamespaceHeader, len(asked))
	case len(asked) == 1:
		if err := amendsv1.CheckNamespace(asked[0]); err != nil {
			return "", amendsv1.ErrInvalidArgument.With("metadata %s: %v", amendsv1.NamespaceHeader, err)
		}
		return asked[0], nil
	}
	if own := id.Namespaces(); len(own) == 1 && own[0] != All {
		return own[0], nil
	}
	return "", nil
}
