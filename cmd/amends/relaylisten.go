package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/outbox/outboxapi"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// defaultRelayAddr is where `amends outbox` looks for a relay.
const defaultRelayAddr = "127.0.0.1:7462"

// relayDrain is how long requests under way may take when a relay stops.
const relayDrain = 2 * time.Second

// answering is the API that a relay serves, to people.
type answering struct {
	addr      string // empty: none
	namespace string // that the outbox's transactions are in
	access
	lis net.Listener
}

// flags have names of their own: --tls-cert and its like are for the way to the
// coordinator.
func (a *answering) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.addr, "listen", "",
		"serve the outbox's API and health on this `address` (default: don't), for example "+defaultRelayAddr)
	f.StringVar(&a.authFile, "auth-file", "", "of --listen: ask who calls, as 'amends serve' does, by this JSON `file`")
	f.StringVar(&a.tlsCert, "listen-tls-cert", "", "of --listen: talk TLS, with the certificate chain in this PEM `file`")
	f.StringVar(&a.tlsKey, "listen-tls-key", "", "its key, a PEM `file`")
	f.StringVar(&a.clientCA, "listen-client-ca", "",
		"of --listen: take client certificates signed by an authority in this PEM `file`")
	f.BoolVar(&a.insecure, "listen-insecure", false, "listen beyond loopback without TLS or login")
}

func (a *answering) check() error {
	rest := a.tlsCert + a.tlsKey + a.clientCA + a.authFile
	switch {
	case a.addr == "" && (rest != "" || a.insecure):
		return usagef("--auth-file and the --listen- flags are for --listen: give that too")
	case a.addr == "":
		return nil
	case (a.tlsCert == "") != (a.tlsKey == ""):
		return usagef("--listen-tls-cert and --listen-tls-key belong together: give both")
	case a.clientCA != "" && (a.tlsCert == "" || a.authFile == ""):
		return usagef("--listen-client-ca is for TLS, and says nothing of what certificates may do: " +
			"give --listen-tls-cert, --listen-tls-key and --auth-file too")
	}
	host, _, err := net.SplitHostPort(a.addr)
	if err != nil {
		return usagef("--listen %q: want host:port, for example %s", a.addr, defaultRelayAddr)
	}
	if a.insecure || loopback(host) || a.tlsCert != "" && a.authFile != "" {
		return nil
	}
	return usagef("--listen %q is not a loopback address: whoever reaches it could read, park and discard every message; "+
		"give --listen-tls-cert, --listen-tls-key and --auth-file, or --listen-insecure to accept that", a.addr)
}

// open listens, and reads the files.
func (a *answering) open(ctx context.Context, log *slog.Logger) (err error) {
	if a.addr == "" {
		return nil
	}
	if err := a.load(log); err != nil {
		return err
	}
	a.lis, err = listen(ctx, "--listen", a.addr)
	return err
}

// run answers until ctx ends.
func (a *answering) run(ctx context.Context, w io.Writer, op *outbox.Operator, log *slog.Logger) error {
	if a.lis == nil {
		return nil
	}
	srv, checks := a.server(op, log)
	fmt.Fprintf(w, "amends: outbox served on %s\n", a.lis.Addr())
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(a.lis); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		checks.Shutdown()
		timer := time.AfterFunc(relayDrain, srv.Stop)
		defer timer.Stop()
		srv.GracefulStop()
		return nil
	})
	return g.Wait()
}

func (a *answering) server(op *outbox.Operator, log *slog.Logger) (*grpc.Server, *health.Server) {
	guard := a.guard
	if guard == nil {
		guard = auth.Open()
	}
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(guard.Unary, a.inNamespace), grpc.ChainStreamInterceptor(guard.Stream),
	}
	if a.grpcTLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(a.grpcTLS)))
	}
	srv, checks := grpc.NewServer(opts...), health.NewServer()
	amendsv1.RegisterOutboxServiceServer(srv, outboxapi.New(op, &outboxapi.Config{Actor: subject, Logger: log}))
	healthpb.RegisterHealthServer(srv, checks)
	reflection.Register(srv)
	return srv, checks
}

// inNamespace lets nobody in who was let in to another namespace than the one
// that this outbox's transactions are in.
func (a *answering) inNamespace(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
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
