package main

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// ownOutbox is what the console calls the coordinator's own outbox, of
// --lifecycle-kafka.
const ownOutbox = "lifecycle"

// shown is the coordinator's own outbox for the console; ok is false when there
// is none. It holds messages of every namespace.
func (l *lifecycle) shown(guard *auth.Guard, log *slog.Logger) (own console.Outbox, ok bool) {
	if l.relay == nil {
		return own, false
	}
	if guard == nil {
		guard = auth.Open()
	}
	conn := &outboxapi.Local{Interceptors: []grpc.UnaryServerInterceptor{guard.Unary, everyNamespace}}
	amendsv1.RegisterOutboxServiceServer(conn, outboxapi.New(l.box.Operator(l.db), &outboxapi.Config{Actor: subject, Logger: log}))
	amendsv1.RegisterClusterServiceServer(conn, mirror{})
	return console.Outbox{Name: ownOutbox, Conn: conn}, true
}

// everyNamespace lets in whose role is in all namespaces, whichever the request
// names: others would see what is not theirs.
func everyNamespace(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	caller, _ := auth.FromContext(ctx)
	if !caller.Authenticated {
		return next(ctx, req)
	}
	caller.Namespace = auth.All
	roles := []amendsv1.Role{amendsv1.Role_ROLE_OPERATOR, amendsv1.Role_ROLE_BREAK_GLASS}
	if _, acts := req.(interface{ GetReason() string }); !acts {
		roles = append(roles, amendsv1.Role_ROLE_VIEWER)
	}
	if !caller.Has(roles...) {
		return nil, amendsv1.ErrPermission.With("%s: this outbox has messages of every namespace, and needs a role in all of them (@%s)",
			caller.Subject, auth.All)
	}
	return next(auth.NewContext(ctx, caller), req)
}

// collectors are the figures of the coordinator's own outbox, if it has one.
func (l *lifecycle) collectors(d *outbox.Dialect) []prometheus.Collector {
	if l.relay == nil {
		return nil
	}
	depth := func(ctx context.Context) (outbox.Backlog, error) { return outbox.Depth(ctx, l.db, d) }
	return []prometheus.Collector{metrics.NewRelay(l.relay, &metrics.RelayConfig{Depth: depth}), metrics.NewWriter(l.box)}
}
