package service

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/amends-dev/amends/examples/shop/internal/orders"
)

// serve takes orders on a free port of the loopback interface: POST /orders
// with one order as JSON. 201: placed; 200: placed before; 4xx: turned away,
// the body says why; 503: ask again.
func (s *orderService) serve(ctx context.Context) error {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", s.post)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return server.Shutdown(soon)
	})
	g.Go(func() error { return s.ready(lis.Addr().String()) })
	return g.Wait()
}

func (s *orderService) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, orders.MaxLine))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	o, err := orders.Parse(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	again, err := s.place(r.Context(), o)
	switch {
	case errors.Is(err, errUnknownProduct), errors.Is(err, errOtherOrder):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case err != nil:
		s.cfg.Logger.WarnContext(r.Context(), "order not placed", "order", o.ID, "err", err)
		http.Error(w, "try again", http.StatusServiceUnavailable)
	case again:
		w.WriteHeader(http.StatusOK)
	default:
		w.WriteHeader(http.StatusCreated)
	}
}
