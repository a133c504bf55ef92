package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/amends-dev/amends/outbox"
)

// defaultRelayAddr is where `amends outbox` looks for a relay; the other one is
// only an example.
const (
	defaultRelayAddr = "127.0.0.1:7462"
	defaultRelayHTTP = "127.0.0.1:7463"
)

// relayDrain is how long requests under way may take when a relay stops.
const relayDrain = 2 * time.Second

// answering is the API that a relay serves, to people.
type answering struct {
	addr, http string // empty: none
	namespace  string // that the outbox's transactions are in
	access
	lis    net.Listener // nil: none
	server *grpc.Server
	checks *health.Server
	web    *web // nil: none
}

// flags have names of their own: --tls-cert and its like are for the way to the
// coordinator.
func (a *answering) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.addr, "listen", "",
		"serve the outbox's API and health on this `address` (default: don't), for example "+defaultRelayAddr)
	f.StringVar(&a.http, "http", "",
		"serve the same as HTTP/JSON, /metrics and /healthz on this `address` (default: don't), for example "+defaultRelayHTTP)
	f.StringVar(&a.authFile, "auth-file", "", "of --listen and --http: ask who calls, as 'amends serve' does, by this JSON `file`")
	f.StringVar(&a.tlsCert, "listen-tls-cert", "", "of --listen and --http: talk TLS, with the certificate chain in this PEM `file`")
	f.StringVar(&a.tlsKey, "listen-tls-key", "", "its key, a PEM `file`")
	f.StringVar(&a.clientCA, "listen-client-ca", "",
		"of --listen: take client certificates signed by an authority in this PEM `file`")
	f.BoolVar(&a.insecure, "listen-insecure", false, "listen beyond loopback without TLS or login")
}

func (a *answering) check() error {
	rest := a.tlsCert + a.tlsKey + a.clientCA + a.authFile
	switch {
	case a.addr == "" && a.http == "" && (rest != "" || a.insecure):
		return usagef("--auth-file and the --listen- flags are for --listen and --http: give one of these too")
	case (a.tlsCert == "") != (a.tlsKey == ""):
		return usagef("--listen-tls-cert and --listen-tls-key belong together: give both")
	case a.clientCA != "" && (a.tlsCert == "" || a.authFile == ""):
		return usagef("--listen-client-ca is for TLS, and says nothing of what certificates may do: " +
			"give --listen-tls-cert, --listen-tls-key and --auth-file too")
	}
	return errors.Join(a.checkListen("--listen", a.addr, defaultRelayAddr), a.checkListen("--http", a.http, defaultRelayHTTP))
}

// checkListen refuses an address that others can reach, as a coordinator does.
func (a *answering) checkListen(flag, addr, example string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("%s %q: want host:port, for example %s", flag, addr, example)
	}
	if a.insecure || loopback(host) || a.tlsCert != "" && a.authFile != "" {
		return nil
	}
	return usagef("%s %q is not a loopback address: whoever reaches it could read, park and discard every message; "+
		"give --listen-tls-cert, --listen-tls-key and --auth-file, or --listen-insecure to accept that", flag, addr)
}

// open reads the files and listens; show is for /metrics.
func (a *answering) open(ctx context.Context, op *outbox.Operator, show prometheus.Collector, log *slog.Logger) (err error) {
	if a.addr == "" && a.http == "" {
		return nil
	}
	if err := a.load(log); err != nil {
		return err
	}
	api := newRelayAPI(a.guard, a.namespace, op, log)
	if a.http != "" {
		h, err := api.handler(a.gatewayConfig(), show)
		if err != nil {
			return err
		}
		if a.web, err = newWeb(ctx, a.http, h, a.httpTLS, relayDrain, log); err != nil {
			return err
		}
	}
	if a.addr == "" {
		return nil
	}
	if a.lis, err = listen(ctx, "--listen", a.addr); err != nil {
		return errors.Join(err, a.web.close())
	}
	a.server, a.checks = api.server(a.grpcTLS)
	return nil
}

// run answers until ctx ends.
func (a *answering) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.web.run(gctx) })
	if a.lis == nil {
		return g.Wait()
	}
	g.Go(func() error {
		if err := a.server.Serve(a.lis); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		a.checks.Shutdown()
		timer := time.AfterFunc(relayDrain, a.server.Stop)
		defer timer.Stop()
		a.server.GracefulStop()
		return nil
	})
	return g.Wait()
}

// say tells where it answers.
func (a *answering) say(w io.Writer) {
	if a.lis != nil {
		fmt.Fprintf(w, "amends: outbox served on %s\n", a.lis.Addr())
	}
	if a.web != nil {
		fmt.Fprintf(w, "amends: outbox over HTTP on %s\n", a.web.url())
	}
}
