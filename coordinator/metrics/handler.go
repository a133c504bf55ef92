package metrics

import (
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of a scrape.
const (
	maxScrapes    = 4 // at once
	scrapeTimeout = 30 * time.Second
)

// Handler answers scrapes with what the collectors show, and with the figures
// of the Go runtime and of this process. It asks nobody who they are: put it
// behind Guarded, or on loopback. It is an error when two collectors show the
// same metric.
//
// Whoever has a registry already registers the collectors there instead.
func Handler(show ...prometheus.Collector) (http.Handler, error) {
	reg := prometheus.NewRegistry()
	all := append([]prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, show...)
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
	}), nil
}
