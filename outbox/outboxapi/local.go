package outboxapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Client returns a client of s in the same process, without a network between
// the two. Errors are what gRPC would make of them.
func (s *Server) Client() amendsv1.OutboxServiceClient {
	return amendsv1.NewOutboxServiceClient(local{s})
}

// local is a connection to a Server.
type local struct{ s *Server }

// Invoke calls a method.
func (l local) Invoke(ctx context.Context, method string, req, reply any, _ ...grpc.CallOption) error {
	in, out, ok := messages(req, reply)
	for _, m := range amendsv1.OutboxService_ServiceDesc.Methods {
		if !ok || method != "/"+amendsv1.OutboxService_ServiceDesc.ServiceName+"/"+m.MethodName {
			continue
		}
		answer, err := m.Handler(l.s, ctx, func(into any) error {
			if target, ok := into.(proto.Message); ok {
				proto.Merge(target, in)
			}
			return nil
		}, nil)
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
	return status.Errorf(codes.Unimplemented, "%s is not of OutboxService", method)
}

// NewStream refuses: OutboxService has no streams.
func (l local) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "%s is not of OutboxService", method)
}

func messages(req, reply any) (in, out proto.Message, ok bool) {
	in, ok = req.(proto.Message)
	out, replyOK := reply.(proto.Message)
	return in, out, ok && replyOK
}
