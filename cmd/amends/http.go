package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/auth"
	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/gateway"
	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/coordinator/notify"
)

// defaultHTTP is where `amends dev` serves the console.
const defaultHTTP = "127.0.0.1:7461"

// What a client may take over a request's headers, and between two requests.
// Answers have no limit: a watch lasts as long as its transaction.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	headerBytes   = 64 << 10
)

// web is an HTTP server of ours: console and gateway of a coordinator, gateway
// of a relay.
type web struct {
	lis    net.Listener
	server *http.Server
	drain  time.Duration
	after  func() error // closes what the handler works with
}

// newWeb listens on --http.
func newWeb(ctx context.Context, addr string, h http.Handler, conf *tls.Config, drain time.Duration, log *slog.Logger) (*web, error) {
	lis, err := listen(ctx, "--http", addr)
	if err != nil {
		return nil, err
	}
	return &web{lis, &http.Server{
		Handler: auth.ClientCertificates(h), TLSConfig: conf, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}, drain, func() error { return nil }}, nil
}

// gatewayConfig is that of an API whose callers a has let in.
func (a *access) gatewayConfig() *gateway.Config {
	if a.guard != nil || a.insecure {
		return &gateway.Config{}
	}
	// Nobody is asked who they are: a web page whose name was pointed at this
	// machine must not reach the API.
	return &gateway.Config{Hosts: []string{"localhost"}}
}

// endpoints are what an HTTP server has beside its API: /healthz, which answers
// whoever asks for as long as the server does, and /metrics, for those who may
// look over conn.
func endpoints(pages http.Handler, conn grpc.ClientConnInterface, show ...prometheus.Collector) (http.Handler, error) {
	figures, err := metrics.Handler(show...)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // who went away is not told so
	})
	mux.Handle("GET /metrics", metrics.Guarded(figures, conn))
	mux.Handle("/", pages)
	return mux, nil
}

// collectors are what /metrics shows of the coordinator.
func (n *node) collectors(c *coordinator.Coordinator, notifier *notify.Notifier) []prometheus.Collector {
	all := []prometheus.Collector{metrics.New(c, nil)}
	if notifier != nil {
		all = append(all, metrics.NewNotifier(notifier))
	}
	if n.sealed != nil {
		all = append(all, metrics.NewEncryption(n.sealed))
	}
	return all
}

// newWeb listens on n.http, unless that is empty: then it is nil.
func (n *node) newWeb(ctx context.Context, c *coordinator.Coordinator, notifier *notify.Notifier, log *slog.Logger) (w *web, err error) {
	if n.http == "" {
		return nil, nil
	}
	cfg := &console.Config{Gateway: n.access.gatewayConfig()}
	relays, done, err := n.outboxes.connect(n.access.guard, &n.kafka)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	if own, ok := n.lifecycle.shown(n.access.guard, log); ok {
		relays = append(relays, own)
	}
	cfg.Outboxes = relays
	pages, err := console.New(c.GuardedConn(), cfg)
	if err != nil {
		return nil, err
	}
	show := append(n.lifecycle.collectors(n.at.dialect()), n.collectors(c, notifier)...)
	handler, err := endpoints(pages, c.GuardedConn(), show...)
	if err != nil {
		return nil, err
	}
	if w, err = newWeb(ctx, n.http, handler, n.access.httpTLS, n.drain, log); err == nil {
		w.after = done
	}
	return w, err
}

// url is what to type into a browser; empty when nothing is served.
func (w *web) url() string {
	switch {
	case w == nil:
		return ""
	case w.server.TLSConfig != nil:
		return "https://" + w.lis.Addr().String() + "/"
	}
	return "http://" + w.lis.Addr().String() + "/"
}

// close ends one that never ran.
func (w *web) close() error {
	if w == nil {
		return nil
	}
	return errors.Join(w.lis.Close(), w.after())
}

// run serves until ctx ends; then requests under way get the drain's time.
func (w *web) run(ctx context.Context) error {
	if w == nil {
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		var err error
		if w.server.TLSConfig != nil {
			err = w.server.ServeTLS(w.lis, "", "")
		} else {
			err = w.server.Serve(w.lis)
		}
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
	g.Go(func() error {
		<-gctx.Done()
		draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.drain)
		defer cancel()
		if err := w.server.Shutdown(draining); err != nil {
			return w.server.Close() // ends what takes longer
		}
		return nil
	})
	return errors.Join(g.Wait(), w.after())
}
