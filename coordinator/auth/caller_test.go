package auth

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

var (
	viewer   = amendsv1.Role_ROLE_VIEWER
	operator = amendsv1.Role_ROLE_OPERATOR
	service  = amendsv1.Role_ROLE_SERVICE
)

func TestGrants(t *testing.T) {
	for text, want := range map[string]Grant{
		"viewer":               {"", viewer},
		"operator@shop":        {"shop", operator},
		"break-glass@*":        {"*", amendsv1.Role_ROLE_BREAK_GLASS},
		"service@eu-1":         {"eu-1", service},
		"service@" + long('a'): {long('a'), service},
	} {
		got, err := ParseGrant(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("%q is written %q", text, got)
		}
	}
	for _, text := range []string{
		"", "admin", "Viewer", "viewer ", "viewer@", "@shop", "viewer@Shop", "viewer@a.b", "viewer@a@b", "viewer@**",
		"viewer@-a", "viewer@a-", "viewer@a/b", "viewer@ä", "viewer@a\x00", "viewer@" + long('a') + "a",
	} {
		if g, err := ParseGrant(text); err == nil {
			t.Errorf("%q: %v, want an error", text, g)
		}
	}
}

// long is the longest namespace.
func long(r rune) string { return strings.Repeat(string(r), amendsv1.MaxNamespace) }

// TestNamespaceOfRequest: the header, else the only namespace of the grants,
// else the default one.
func TestNamespaceOfRequest(t *testing.T) {
	for _, c := range []struct {
		grants []Grant
		header []string
		want   string
		code   codes.Code
	}{
		{grants: []Grant{{"shop", viewer}}, want: "shop"},
		{grants: []Grant{{"shop", viewer}, {"shop", operator}}, want: "shop"},
		{grants: []Grant{{"shop", viewer}}, header: []string{"shop"}, want: "shop"},
		{grants: []Grant{{"shop", viewer}}, header: []string{""}, code: codes.PermissionDenied},
		{grants: []Grant{{"shop", viewer}, {"", viewer}}, want: ""},
		{grants: []Grant{{"shop", viewer}, {"bank", viewer}}, code: codes.PermissionDenied},
		{grants: []Grant{{"shop", viewer}, {"bank", viewer}}, header: []string{"bank"}, want: "bank"},
		{grants: []Grant{{"*", viewer}}, want: ""},
		{grants: []Grant{{"*", viewer}}, header: []string{"any"}, want: "any"},
		{grants: []Grant{{"*", viewer}}, header: []string{"*"}, code: codes.InvalidArgument},
		{grants: []Grant{{"*", viewer}}, header: []string{"Shop"}, code: codes.InvalidArgument},
		{grants: []Grant{{"*", viewer}}, header: []string{"shop", "shop"}, code: codes.InvalidArgument},
		{grants: []Grant{{"", viewer}}, want: ""},
		{code: codes.PermissionDenied},
	} {
		who := &people{ids: map[string]*Identity{"x": {Subject: "x", Grants: c.grants}}}
		s := serving(t, newGuard(t, who, nil))
		ctx := metadata.NewOutgoingContext(t.Context(),
			metadata.MD{"authorization": {"Bearer x"}, amendsv1.NamespaceHeader: c.header})
		_, err := amendsv1.NewClusterServiceClient(s.conn).WhoAmI(ctx, &amendsv1.WhoAmIRequest{})
		if status.Code(err) != c.code {
			t.Errorf("%v %q: %v, want %v", c.grants, c.header, err, c.code)
		} else if err == nil && (s.last.Namespace != c.want || s.last.Subject != "x" || !s.last.Authenticated) {
			t.Errorf("%v %q: %+v, want it in %q", c.grants, c.header, *s.last, c.want)
		}
	}
}

// TestNobodyAsked: without a Guard that asks, all callers have every role, and
// the namespace that they name; those of the process have a name, too.
func TestNobodyAsked(t *testing.T) {
	for subject, g := range map[string]*Guard{"": Open(), "in-process": InProcess()} {
		s := serving(t, g)
		ctx := as(t.Context(), "a token that nobody reads", "bank")
		if _, err := amendsv1.NewClusterServiceClient(s.conn).WhoAmI(ctx, &amendsv1.WhoAmIRequest{}); err != nil {
			t.Fatal(err)
		}
		c := *s.last
		want := []amendsv1.Role{1, 2, 3, 4}
		if c.Subject != subject || c.Namespace != "bank" || c.Authenticated != (subject != "") || !reflect.DeepEqual(c.Roles(), want) {
			t.Errorf("%+v with %v", c, c.Roles())
		}
		if !reflect.DeepEqual(c.Namespaces(), []string{"*"}) || c.mayAnswerFor("any") != nil {
			t.Errorf("%+v", c)
		}
	}
}

func TestMayAnswerFor(t *testing.T) {
	if err := MayAnswerFor(t.Context(), "accounts"); !errors.Is(err, amendsv1.ErrUnauthenticated) {
		t.Errorf("nobody: %v", err)
	}
	for name, in := range map[string]bool{"accounts": true, "account": false, "": false, "*": false, "accounts.eu": false} {
		ctx := NewContext(t.Context(), Caller{Identity: Identity{Subject: "x", Services: []string{"accounts", "cards"}}})
		if err := MayAnswerFor(ctx, name); (err == nil) != in || err != nil && !errors.Is(err, amendsv1.ErrPermission) {
			t.Errorf("%q: %v, want %v", name, err, in)
		}
	}
}

// TestServersInterceptors: what a server counts with sees what the Guard refuses.
func TestServersInterceptors(t *testing.T) {
	var saw []string
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		resp, err := next(ctx, req)
		saw = append(saw, fmt.Sprint(short(info.FullMethod), " ", status.Code(err)))
		return resp, err
	}
	s := serving(t, newGuard(t, &people{}, nil), grpc.UnaryInterceptor(unary))
	_, _ = amendsv1.NewClusterServiceClient(s.conn).WhoAmI(as(t.Context(), "x", ""), &amendsv1.WhoAmIRequest{}) // refused
	if want := []string{"ClusterService.WhoAmI Unauthenticated"}; !reflect.DeepEqual(saw, want) {
		t.Errorf("saw %q, want %q", saw, want)
	}
}

func TestConfig(t *testing.T) {
	if _, err := New(nil, &Config{Rate: nan()}); err == nil || !strings.Contains(err.Error(), "Authenticator") ||
		!strings.Contains(err.Error(), "Rate") {
		t.Errorf("%v, want both mistakes", err)
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

// TestStrangeAuthenticators: whatever a user's own one answers, nobody is let in
// by mistake and nothing that it says leaks.
func TestStrangeAuthenticators(t *testing.T) {
	for _, c := range []struct {
		id   *Identity
		err  error
		want codes.Code
	}{
		{nil, nil, codes.Unauthenticated},
		{nil, errors.New("ldap: password hunter2"), codes.Unavailable},
		{nil, amendsv1.ErrUnavailable.With("later"), codes.Unavailable},
		{everybody("in-process"), nil, codes.Unauthenticated},
		{everybody(""), nil, codes.Unauthenticated},
		{everybody("a\nb"), nil, codes.Unauthenticated},
		{everybody("a\u202eb"), nil, codes.Unauthenticated},
		{everybody("\xff"), nil, codes.Unauthenticated},
		{everybody(strings.Repeat("a", maxSubject+1)), nil, codes.Unauthenticated},
		{everybody("Åsa Öberg <asa@example.com>"), nil, codes.OK},
	} {
		log := &logged{}
		s := serving(t, newGuard(t, authenticator(func() (*Identity, error) { return c.id, c.err }), &Config{Logger: log.logger()}))
		_, err := amendsv1.NewClusterServiceClient(s.conn).WhoAmI(as(t.Context(), "t", ""), &amendsv1.WhoAmIRequest{})
		if status.Code(err) != c.want || strings.Contains(fmt.Sprint(err)+log.String(), "hunter2") {
			t.Errorf("%+v, %v: %v, want %v; log: %s", c.id, c.err, err, c.want, log)
		}
	}
}

type authenticator func() (*Identity, error)

func (f authenticator) Authenticate(context.Context, Credentials) (*Identity, error) { return f() }

func TestChain(t *testing.T) {
	ann, bob := &Identity{Subject: "ann"}, &Identity{Subject: "bob"}
	none := authenticator(func() (*Identity, error) { return nil, nil })
	bad := authenticator(func() (*Identity, error) { return nil, amendsv1.ErrUnauthenticated })
	is := func(id *Identity) Authenticator { return authenticator(func() (*Identity, error) { return id, nil }) }
	for _, c := range []struct {
		chain Chain
		want  *Identity
		err   error
	}{
		{nil, nil, nil},
		{Chain{none, is(ann), is(bob)}, ann, nil},
		{Chain{none, bad, is(bob)}, nil, amendsv1.ErrUnauthenticated},
	} {
		if id, err := c.chain.Authenticate(t.Context(), Credentials{}); id != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v, %v, want %v, %v", id, err, c.want, c.err)
		}
	}
}
