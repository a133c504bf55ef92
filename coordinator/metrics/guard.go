package metrics

import (
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/amends-dev/amends/proto/amends/v1"
)

// Guarded answers those who may look at the coordinator, which it asks over
// conn, a Coordinator's GuardedConn, with the Authorization header of each
// scrape: a token with the role viewer in any namespace will do. The figures
// are of all namespaces together. Nobody else gets more than 401 or 403; and
// 503 while the coordinator cannot say.
func Guarded(h http.Handler, conn grpc.ClientConnInterface) http.Handler {
	cluster := amendsv1.NewClusterServiceClient(conn)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		switch credentials := r.Header.Values("Authorization"); len(credentials) {
		case 0:
		case 1:
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", credentials[0])
		default:
			http.Error(w, "header Authorization stands there twice", http.StatusBadRequest)
			return
		}
		// It is in memory there, and needs what looking needs.
		if _, err := cluster.ListParticipants(ctx, &amendsv1.ListParticipantsRequest{}); err != nil {
			refuse(w, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	switch status.Code(err) {
	case codes.Unauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
		code = http.StatusUnauthorized
	case codes.PermissionDenied:
		code = http.StatusForbidden
	case codes.ResourceExhausted:
		code = http.StatusTooManyRequests
	}
	http.Error(w, status.Convert(err).Message(), code)
}
