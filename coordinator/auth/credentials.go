package auth

import (
	"context"
	"crypto/x509"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// maxToken bounds a token, in bytes.
const maxToken = 8 << 10

// Credentials are what came with a request.
type Credentials struct {
	// Token is that of "authorization: Bearer …"; empty: there is none.
	Token string
	// Certificate is the client's, which a certificate authority that the
	// server trusts has signed; nil: there is none.
	Certificate *x509.Certificate
}

// String hides the token from logs.
func (Credentials) String() string { return "credentials (hidden)" }

// Authenticator tells whose credentials these are. It answers nil and no error
// to those of a kind that it does not know, and amendsv1.ErrUnauthenticated to
// those that it knows to be wrong. Another error means that it cannot tell just
// now. No error holds a token or a part of one. It is called at every request,
// from many goroutines.
type Authenticator interface {
	Authenticate(ctx context.Context, c Credentials) (*Identity, error)
}

// Chain asks one Authenticator after the other until one knows the credentials.
type Chain []Authenticator

// Authenticate returns the first answer.
func (chain Chain) Authenticate(ctx context.Context, c Credentials) (*Identity, error) {
	for _, a := range chain {
		if id, err := a.Authenticate(ctx, c); id != nil || err != nil {
			return id, err
		}
	}
	return nil, nil
}

// credentialsOf takes a request's credentials. One that brings a token means
// the token: a bad one is not made up for by a good certificate.
func credentialsOf(ctx context.Context) (Credentials, error) {
	headers := metadata.ValueFromIncomingContext(ctx, "authorization")
	switch {
	case len(headers) > 1:
		return Credentials{}, amendsv1.ErrUnauthenticated.With("metadata authorization is there %d times: send one", len(headers))
	case len(headers) == 1:
		token, err := bearer(headers[0])
		return Credentials{Token: token}, err
	}
	if cert := certificateOf(ctx); cert != nil {
		return Credentials{Certificate: cert}, nil
	}
	return Credentials{}, amendsv1.ErrUnauthenticated.With(
		"no credentials: send metadata authorization: Bearer TOKEN, or a client certificate")
}

// bearer takes the token out of an authorization header.
func bearer(header string) (string, error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimLeft(token, " ")
	switch {
	case !strings.EqualFold(scheme, "bearer") || token == "":
		return "", amendsv1.ErrUnauthenticated.With("metadata authorization: want Bearer and a token")
	case len(token) > maxToken:
		return "", amendsv1.ErrUnauthenticated.With("a token of %d bytes: at most %d are read", len(token), maxToken)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", amendsv1.ErrUnauthenticated.With("metadata authorization: the token holds what no token does")
	}
	return token, nil
}

// certificateOf is the client's certificate, if it was verified: by the
// connection's TLS, or by that of a gateway in this process.
func certificateOf(ctx context.Context) *x509.Certificate {
	if cert, ok := ctx.Value(certificateKey{}).(*x509.Certificate); ok {
		return cert
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}

// peerOf is where a request comes from, for logs.
func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return "unknown"
}
