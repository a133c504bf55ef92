package auth

import (
	"context"
	"crypto/x509"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// certificateHeader carries a client's certificate, as DER, on connections that
// do not leave the process. Nothing looks at it anywhere else.
const certificateHeader = "amends-client-certificate-bin"

type certificateKey struct{}

// withCertificate returns a context of a request whose client has shown a
// certificate that was verified.
func withCertificate(ctx context.Context, cert *x509.Certificate) context.Context {
	return context.WithValue(ctx, certificateKey{}, cert)
}

// ClientCertificates hands the client certificates of HTTPS requests on to
// what next calls in this process with a request's context: over
// coordinator.GuardedConn they count as they do over gRPC. Put it before a
// gateway or a console whose server has a TLS configuration with ClientCAs, as
// ServerTLS makes one. A certificate counts that the server has verified, and
// no header of a request can stand for one.
func ClientCertificates(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.VerifiedChains[0]) > 0 {
			r = r.WithContext(withCertificate(r.Context(), r.TLS.VerifiedChains[0][0]))
		}
		next.ServeHTTP(w, r)
	})
}

// Carry returns conn, which must not leave the process, with the certificates
// of ClientCertificates going along with each call. The server at its other end
// takes them by CarriedUnary and CarriedStream, and is reached in no other way.
func Carry(conn grpc.ClientConnInterface) grpc.ClientConnInterface { return carrier{conn} }

type carrier struct{ grpc.ClientConnInterface }

// carrying replaces whatever the caller of a call put there.
func carrying(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	delete(md, certificateHeader)
	if cert, _ := ctx.Value(certificateKey{}).(*x509.Certificate); cert != nil {
		md.Set(certificateHeader, string(cert.Raw))
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// Invoke calls a method.
func (c carrier) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(carrying(ctx), method, args, reply, opts...)
}

// NewStream opens a stream.
func (c carrier) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(carrying(ctx), desc, method, opts...)
}

// carried is the context of a call that came by a carrier.
func carried(ctx context.Context) (context.Context, error) {
	all := metadata.ValueFromIncomingContext(ctx, certificateHeader)
	if len(all) == 0 {
		return ctx, nil
	}
	cert, err := x509.ParseCertificate([]byte(all[0]))
	if len(all) > 1 || err != nil { // a carrier sends one, which was verified
		return nil, amendsv1.ErrUnauthenticated.With("the client certificate did not arrive whole")
	}
	return withCertificate(ctx, cert), nil
}

// CarriedUnary is a grpc.UnaryServerInterceptor for the other end of Carry: only
// for a server that is not reached from outside of the process.
func CarriedUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := carried(ctx)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// CarriedStream is the grpc.StreamServerInterceptor like CarriedUnary.
func CarriedStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := carried(ss.Context())
	if err != nil {
		return err
	}
	return next(srv, &carriedStream{ss, ctx})
}

type carriedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context has the certificate.
func (s *carriedStream) Context() context.Context { return s.ctx }
