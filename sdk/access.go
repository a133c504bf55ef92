package sdk

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// BearerToken are the credentials of a service that has a token, static or a
// JWT, for a connection that the service dials itself:
//
//	conn, err := grpc.NewClient("amends.internal:7460",
//		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
//		grpc.WithPerRPCCredentials(sdk.BearerToken(token, false)))
//
// Over a connection without TLS every call fails unless plaintext is true,
// which is for loopback only. A token that changes while the service runs needs
// credentials.PerRPCCredentials of the service's own; a client certificate is
// part of the TLS configuration and needs nothing of this.
func BearerToken(token string, plaintext bool) credentials.PerRPCCredentials {
	return bearerToken{token: token, plaintext: plaintext}
}

type bearerToken struct {
	token     string
	plaintext bool
}

// GetRequestMetadata is the header of a call.
func (b bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity keeps the token off connections without TLS.
func (b bearerToken) RequireTransportSecurity() bool { return !b.plaintext }

// String hides the token from logs.
func (bearerToken) String() string { return "bearer token (hidden)" }

// GoString hides it, too.
func (b bearerToken) GoString() string { return b.String() }

// withNamespace names the namespace of the RPCs of ctx.
func withNamespace(ctx context.Context, namespace string) context.Context {
	md, ok := metadata.FromOutgoingContext(ctx) // a copy
	if !ok {
		md = metadata.MD{}
	}
	md.Set(amendsv1.NamespaceHeader, namespace) // two would be refused
	return metadata.NewOutgoingContext(ctx, md)
}

// namespaced is a connection whose every RPC names a namespace.
type namespaced struct {
	grpc.ClientConnInterface
	namespace string
}

func inNamespace(conn grpc.ClientConnInterface, namespace string) grpc.ClientConnInterface {
	if namespace == "" {
		return conn
	}
	return &namespaced{ClientConnInterface: conn, namespace: namespace}
}

// Invoke implements grpc.ClientConnInterface.
func (n *namespaced) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return n.ClientConnInterface.Invoke(withNamespace(ctx, n.namespace), method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (n *namespaced) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return n.ClientConnInterface.NewStream(withNamespace(ctx, n.namespace), desc, method, opts...)
}

// fromError is amendsv1.FromError that also knows refusals which something else
// than a coordinator sent: a proxy, or the connection's own credentials.
func fromError(err error) error {
	switch status.Code(err) {
	case codes.Unauthenticated:
		return orElse(err, ErrUnauthenticated)
	case codes.PermissionDenied:
		return orElse(err, ErrPermission)
	}
	return amendsv1.FromError(err)
}

func orElse(err error, sentinel *CoordinatorError) error {
	known := amendsv1.FromError(err)
	if own := (*CoordinatorError)(nil); errors.As(known, &own) {
		return known
	}
	return sentinel.With("%s", status.Convert(err).Message())
}

// remindAfter is how often a refusal that does not change is logged.
const remindAfter = 10 * time.Minute

// refusals decides what of the coordinator's refusals of a participant is worth
// an operator's attention, on one connection.
type refusals struct {
	last string // empty: the coordinator let us in
	at   time.Time
}

// level is that of a log line about the end of a stream: a refusal is an error
// when it is new, has changed or has lasted, and otherwise a detail.
func (r *refusals) level(err error, now time.Time) slog.Level {
	if code := status.Code(err); code != codes.Unauthenticated && code != codes.PermissionDenied && !hopeless(err) {
		return slog.LevelWarn
	}
	if text := err.Error(); text != r.last || now.Sub(r.at) >= remindAfter {
		r.last, r.at = text, now
		return slog.LevelError
	}
	return slog.LevelDebug
}

// over notes that the coordinator let us in.
func (r *refusals) over() { r.last = "" }
