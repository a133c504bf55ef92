package metrics

import (
	"net/http"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// Guarded answers those who may look at a coordinator or relay, which it asks
// over conn (a Coordinator's GuardedConn, a relay's services) with the
// Authorization header of each scrape. A token with the role viewer, operator or
// break-glass will do: in any one namespace of a coordinator, whose figures are
// of all together; in that of a relay. Nobody else gets more than 401 or 403;
// and 503 while it cannot be said who asks.
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
		// It needs no database: the figures say when that is away.
		who, err := cluster.WhoAmI(ctx, &amendsv1.WhoAmIRequest{})
		if err == nil && !slices.ContainsFunc(who.GetRoles(), looks) {
			err = amendsv1.ErrPermission.With("%s: the figures need the role viewer", who.GetSubject())
		}
		if err != nil {
			refuse(w, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// looks tells whether a role may look at all.
func looks(r amendsv1.Role) bool {
	return r == amendsv1.Role_ROLE_VIEWER || r == amendsv1.Role_ROLE_OPERATOR || r == amendsv1.Role_ROLE_BREAK_GLASS
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
