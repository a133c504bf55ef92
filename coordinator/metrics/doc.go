// Package metrics shows what a coordinator and a relay do to Prometheus.
//
//	h, err := metrics.Handler(metrics.New(c, nil))
//	mux.Handle("GET /metrics", h)
//
// Every name is in docs/observability.md, with what to do about it. Labels come
// from fixed sets; the one exception, the names of services, is bounded. No
// metric holds a gid, a payload or an address.
package metrics
