package auth

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// BenchmarkGuard is what asking costs a unary call.
func BenchmarkGuard(b *testing.B) {
	k, token := newKeyring(b), NewToken()
	entries := `{"subject": "ann", "grants": ["viewer"], "sha256": "` + HashToken(token) + `"}`
	for i := range 99 {
		entries += `, {"subject": "x", "grants": ["viewer"], "sha256": "` + HashToken(fmt.Sprint(i)) + `"}`
	}
	file := openFile(b, b.TempDir(), `{"tokens": [`+entries+`], "issuers": [{"issuer": "`+iss+`", "audiences": ["amends"],
		"jwks_file": "keys.json"}]}`, map[string]string{"keys.json": k.set(b)})
	asking, err := New(file, &Config{Rate: -1, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	info := &grpc.UnaryServerInfo{FullMethod: amendsv1.AdminService_GetTransaction_FullMethodName}
	next := func(context.Context, any) (any, error) { return nil, nil }
	all := claims(map[string]any{"amends_roles": "viewer"})
	for _, c := range []struct {
		name  string
		guard *Guard
		token string
	}{
		{"open", Open(), ""},
		{"token of 100", asking, token},
		{"JWT ES256", asking, sign(b, jose.ES256, k.ec, "ec", all)},
		{"JWT RS256", asking, sign(b, jose.RS256, k.rsa, "rsa", all)},
		{"JWT EdDSA", asking, sign(b, jose.EdDSA, k.ed, "ed", all)},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("authorization", "Bearer "+c.token))
			for b.Loop() {
				if _, err := c.guard.Unary(ctx, nil, info, next); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
