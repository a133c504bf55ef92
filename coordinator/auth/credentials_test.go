package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// TestCredentials: a token counts before a certificate, also a wrong one; and a
// certificate counts only if it was verified.
func TestCredentials(t *testing.T) {
	cert := &x509.Certificate{}
	shown := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	verified := tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
	for name, c := range map[string]struct {
		headers []string
		tls     tls.ConnectionState
		token   string
		cert    *x509.Certificate
	}{
		"nothing":                   {},
		"token":                     {headers: []string{"Bearer abc"}, token: "abc"},
		"any case, any spaces":      {headers: []string{"bEARER   abc"}, token: "abc"},
		"certificate":               {tls: verified, cert: cert},
		"certificate, not verified": {tls: shown},
		"both":                      {headers: []string{"Bearer abc"}, tls: verified, token: "abc"},
		"two tokens":                {headers: []string{"Bearer abc", "Bearer abc"}, tls: verified},
		"no bearer":                 {headers: []string{"Basic abc"}, tls: verified},
		"no token":                  {headers: []string{"Bearer "}, tls: verified},
		"empty":                     {headers: []string{""}, tls: verified},
		"two words":                 {headers: []string{"Bearer abc def"}, tls: verified},
		"no text":                   {headers: []string{"Bearer abc\x7f"}, tls: verified},
		"longest":                   {headers: []string{"Bearer " + strings.Repeat("a", maxToken)}, token: strings.Repeat("a", maxToken)},
		"too long":                  {headers: []string{"Bearer " + strings.Repeat("a", maxToken+1)}, tls: verified},
	} {
		ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: c.tls}})
		ctx = metadata.NewIncomingContext(ctx, metadata.MD{"authorization": c.headers})
		got, err := credentialsOf(ctx)
		if c.token == "" && c.cert == nil {
			if !errors.Is(err, amendsv1.ErrUnauthenticated) || got.Token != "" || got.Certificate != nil {
				t.Errorf("%s: %v, %v, want ErrUnauthenticated", name, got, err)
			}
			continue
		}
		if err != nil || got.Token != c.token || got.Certificate != c.cert {
			t.Errorf("%s: %.20q and %p, %v", name, got.Token, got.Certificate, err)
		}
	}
}
