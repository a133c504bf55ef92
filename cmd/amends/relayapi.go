package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/gateway"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// relayAPI are a relay's services, and who stands before them.
type relayAPI struct {
	guard     *auth.Guard
	namespace string
	outbox    *outboxapi.Server
}

// newRelayAPI makes the API of an outbox in a namespace; without a guard nobody
// is asked who they are.
func newRelayAPI(guard *auth.Guard, namespace string, op *outbox.Operator, log *slog.Logger) *relayAPI {
	if guard == nil {
		guard = auth.Open()
	}
	return &relayAPI{guard, namespace, outboxapi.New(op, &outboxapi.Config{Actor: subject, Logger: log})}
}

func (a *relayAPI) register(r grpc.ServiceRegistrar) {
	amendsv1.RegisterOutboxServiceServer(r, a.outbox)
	amendsv1.RegisterClusterServiceServer(r, mirror{})
}

// server answers over gRPC.
func (a *relayAPI) server(conf *tls.Config) (*grpc.Server, *health.Server) {
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(a.guard.Unary, a.inNamespace), grpc.ChainStreamInterceptor(a.guard.Stream),
	}
	if conf != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(conf)))
	}
	srv, checks := grpc.NewServer(opts...), health.NewServer()
	a.register(srv)
	healthpb.RegisterHealthServer(srv, checks)
	reflection.Register(srv)
	return srv, checks
}

// handler answers over HTTP.
func (a *relayAPI) handler(cfg *gateway.Config, show prometheus.Collector) (http.Handler, error) {
	conn := &outboxapi.Local{Interceptors: []grpc.UnaryServerInterceptor{a.guard.Unary, a.inNamespace}}
	a.register(conn)
	api, err := gateway.NewOutbox(conn, cfg)
	if err != nil {
		return nil, err
	}
	return endpoints(api, conn, show)
}

// inNamespace lets nobody in who was let in to another namespace than the one
// that this outbox's transactions are in.
func (a *relayAPI) inNamespace(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if caller, ok := auth.FromContext(ctx); ok && caller.Namespace != a.namespace {
		return nil, amendsv1.ErrPermission.With("this outbox is in namespace %q, the request is for %q", a.namespace, caller.Namespace)
	}
	return next(ctx, req)
}

// subject is who calls; empty where nobody is asked.
func subject(ctx context.Context) string {
	caller, _ := auth.FromContext(ctx)
	return caller.Subject
}

// mirror is what a relay has of ClusterService: it tells callers who they are.
type mirror struct {
	amendsv1.UnimplementedClusterServiceServer
}

// WhoAmI implements ClusterService.
func (mirror) WhoAmI(ctx context.Context, _ *amendsv1.WhoAmIRequest) (*amendsv1.WhoAmIResponse, error) {
	caller, _ := auth.FromContext(ctx) // the guard has put it there
	who := &amendsv1.WhoAmIResponse{
		Subject: amendsv1.ValidText(caller.Subject), Namespace: caller.Namespace, Authenticated: caller.Authenticated,
		Namespaces: validTexts(caller.Namespaces()), Services: validTexts(caller.Services),
	}
	for r := amendsv1.Role_ROLE_VIEWER; r <= amendsv1.Role_ROLE_SERVICE; r++ {
		if caller.Has(r) {
			who.Roles = append(who.Roles, r)
		}
	}
	return who, nil
}

func validTexts(texts []string) []string {
	texts = slices.Clone(texts)
	for i := range texts {
		texts[i] = amendsv1.ValidText(texts[i])
	}
	return texts
}
