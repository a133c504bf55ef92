package metrics_test

import (
	"net/http"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/metrics"
)

func ExampleHandler() {
	_ = func(c *coordinator.Coordinator, mux *http.ServeMux) error {
		h, err := metrics.Handler(metrics.New(c, nil))
		if err != nil {
			return err
		}
		mux.Handle("GET /metrics", h)
		return nil
	}
	// Output:
}
