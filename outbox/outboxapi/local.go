package outboxapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Client returns a client of s in the same process, without a network between
// the two. Errors are what gRPC would make of them.
func (s *Server) Client() amendsv1.OutboxServiceClient {
	var l Local
	amendsv1.RegisterOutboxServiceServer(&l, s)
	return amendsv1.NewOutboxServiceClient(&l)
}

// Local is a connection to services of the same process: register them as with a
// gRPC server, then call them as over gRPC. Metadata goes along, streams are
// refused. The zero value is ready; it is safe for concurrent use once every
// service is registered.
type Local struct {
	// Interceptors stand before every method, the first one outermost. Default:
	// none.
	Interceptors []grpc.UnaryServerInterceptor

	methods map[string]localMethod // by full name
}

type localMethod struct {
	impl    any
	handler grpc.MethodHandler
}

// RegisterService implements grpc.ServiceRegistrar, for methods without streams.
func (l *Local) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if l.methods == nil {
		l.methods = map[string]localMethod{}
	}
	for _, m := range desc.Methods {
		l.methods["/"+desc.ServiceName+"/"+m.MethodName] = localMethod{impl, m.Handler}
	}
}

// Invoke calls a method. Call options are left out: they are about networks.
func (l *Local) Invoke(ctx context.Context, method string, req, reply any, _ ...grpc.CallOption) error {
	in, out, ok := messages(req, reply)
	m, known := l.methods[method]
	if !ok || !known {
		return status.Errorf(codes.Unimplemented, "%s is not offered here", method)
	}
	decode := func(into any) error {
		if target, ok := into.(proto.Message); ok {
			proto.Merge(target, in)
		}
		return nil
	}
	answer, err := m.handler(m.impl, arrived(ctx), decode, l.intercept)
	if err != nil {
		if st, ok := status.FromError(err); ok {
			return st.Err()
		}
		return status.FromContextError(err).Err()
	}
	if found, ok := answer.(proto.Message); ok {
		proto.Merge(out, found)
	}
	return nil
}

// intercept puts the interceptors before a method.
func (l *Local) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	for i := len(l.Interceptors) - 1; i >= 0; i-- {
		this, then := l.Interceptors[i], next
		next = func(ctx context.Context, req any) (any, error) { return this(ctx, req, info, then) }
	}
	return next(ctx, req)
}

// arrived is a caller's context as the called sees it: what was sent has come,
// and nothing is on its way out.
func arrived(ctx context.Context) context.Context {
	sent, _ := metadata.FromOutgoingContext(ctx)
	ctx = metadata.NewOutgoingContext(ctx, nil)
	return metadata.NewIncomingContext(ctx, sent)
}

// NewStream refuses.
func (l *Local) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "%s: there are no streams here", method)
}

func messages(req, reply any) (in, out proto.Message, ok bool) {
	in, ok = req.(proto.Message)
	out, replyOK := reply.(proto.Message)
	return in, out, ok && replyOK
}
