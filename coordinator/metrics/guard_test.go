package metrics_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/coordinator/metrics"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// gate is a connection to a coordinator that knows tokens.
type gate struct{ grpc.ClientConnInterface }

func (gate) Invoke(ctx context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	md, _ := metadata.FromOutgoingContext(ctx)
	switch token := md.Get("authorization"); {
	case len(token) == 0:
		return status.Error(codes.Unauthenticated, "who are you?")
	case token[0] == "Bearer viewer":
		return as(reply, amendsv1.Role_ROLE_SERVICE, amendsv1.Role_ROLE_VIEWER)
	case token[0] == "Bearer operator":
		return as(reply, amendsv1.Role_ROLE_OPERATOR)
	case token[0] == "Bearer worker":
		return as(reply, amendsv1.Role_ROLE_SERVICE)
	case token[0] == "Bearer often":
		return status.Error(codes.ResourceExhausted, "too often")
	case token[0] == "Bearer service":
		return status.Error(codes.PermissionDenied, "not you")
	}
	return status.Error(codes.Unavailable, "shutting down")
}

func as(reply any, roles ...amendsv1.Role) error {
	if who, ok := reply.(*amendsv1.WhoAmIResponse); ok {
		who.Roles = roles
		return nil
	}
	return status.Error(codes.Unimplemented, "a relay does not know that")
}

func TestGuarded(t *testing.T) {
	h := metrics.Guarded(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), gate{})
	for _, c := range []struct {
		tokens []string
		want   int
	}{
		{nil, 401}, {[]string{"Bearer viewer"}, 200}, {[]string{"Bearer operator"}, 200}, {[]string{"Bearer worker"}, 403},
		{[]string{"Bearer service"}, 403}, {[]string{"Bearer often"}, 429},
		{[]string{"Bearer other"}, 503}, {[]string{"Bearer viewer", "Bearer service"}, 400},
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		for _, token := range c.tokens {
			r.Header.Add("Authorization", token)
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%q: status %d, want %d", c.tokens, w.Code, c.want)
		}
	}
}
