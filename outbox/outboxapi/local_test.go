package outboxapi_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// echo is a relay that answers with what came along.
type echo struct {
	amendsv1.UnimplementedOutboxServiceServer
}

func (echo) ListMessages(ctx context.Context, r *amendsv1.ListMessagesRequest) (*amendsv1.ListMessagesResponse, error) {
	if r.GetTopic() == "late" {
		return nil, context.DeadlineExceeded
	}
	sent, _ := metadata.FromOutgoingContext(ctx)
	came, _ := metadata.FromIncomingContext(ctx)
	return &amendsv1.ListMessagesResponse{
		NextPageToken: r.GetTopic() + " " + strings.Join(came.Get("x"), "|") + " " + strings.Join(sent.Get("x"), "|"),
	}, nil
}

// TestLocal: what is sent comes, and no more; interceptors stand in order; what
// is not offered is refused.
func TestLocal(t *testing.T) {
	var order []string
	note := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			order = append(order, name+" "+info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:])
			if ctx.Err() == nil && metadata.ValueFromIncomingContext(ctx, "x")[0] == "kept out" {
				return nil, amendsv1.ErrPermission.With("not you")
			}
			return next(ctx, req)
		}
	}
	conn := &outboxapi.Local{Interceptors: []grpc.UnaryServerInterceptor{note("first"), note("second")}}
	amendsv1.RegisterOutboxServiceServer(conn, echo{})
	client := amendsv1.NewOutboxServiceClient(conn)
	as := func(x string) context.Context {
		// What came to the caller itself goes no further.
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("x", "of the caller's own caller"))
		return metadata.AppendToOutgoingContext(ctx, "x", x)
	}
	resp, err := client.ListMessages(as("1"), &amendsv1.ListMessagesRequest{Topic: "orders"})
	if err != nil || resp.GetNextPageToken() != "orders 1 " {
		t.Errorf("%q, %v", resp.GetNextPageToken(), err)
	}
	if got := strings.Join(order, ", "); got != "first ListMessages, second ListMessages" {
		t.Errorf("interceptors: %s", got)
	}
	for want, call := range map[codes.Code]func() error{
		codes.PermissionDenied: func() error {
			_, err := client.ListMessages(as("kept out"), &amendsv1.ListMessagesRequest{})
			return err
		},
		codes.DeadlineExceeded: func() error {
			_, err := client.ListMessages(as("1"), &amendsv1.ListMessagesRequest{Topic: "late"})
			return err
		},
		codes.Unimplemented: func() error {
			_, err := amendsv1.NewClusterServiceClient(conn).WhoAmI(as("1"), &amendsv1.WhoAmIRequest{})
			return err
		},
	} {
		if err := call(); status.Code(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := conn.NewStream(as("1"), &grpc.StreamDesc{}, "/a/b"); status.Code(err) != codes.Unimplemented {
		t.Errorf("a stream: %v", err)
	}
}
