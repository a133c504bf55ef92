package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/console"
	"github.com/amends-dev/amends/coordinator/gateway"
	"github.com/amends-dev/amends/coordinator/metrics"
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

// web is the HTTP half of a coordinator: console and gateway.
type web struct {
	lis    net.Listener
	server *http.Server
	drain  time.Duration
}

// newWeb listens on n.http, unless that is empty: then it is nil.
func (n *node) newWeb(ctx context.Context, c *coordinator.Coordinator, log *slog.Logger) (*web, error) {
	if n.http == "" {
		return nil, nil
	}
	var hosts []string
	if n.access.guard == nil && !n.access.insecure {
		// Nobody is asked who they are: a web page whose name was pointed at
		// this machine must not reach the API.
		hosts = []string{"localhost"}
	}
	pages, err := console.New(c.GuardedConn(), &console.Config{Gateway: &gateway.Config{Hosts: hosts}})
	if err != nil {
		return nil, err
	}
	figures, err := metrics.Handler(metrics.New(c, nil))
	if err != nil {
		return nil, err
	}
	handler := http.NewServeMux()
	handler.Handle("GET /metrics", metrics.Guarded(figures, c.GuardedConn()))
	handler.Handle("/", pages)
	lis, err := listen(ctx, "--http", n.http)
	if err != nil {
		return nil, err
	}
	return &web{lis, &http.Server{
		Handler: handler, TLSConfig: n.access.httpTLS, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}, n.drain}, nil
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
	return g.Wait()
}
