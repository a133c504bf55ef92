package metrics_test

import (
	"context"
	"testing"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/metrics"
)

// told is a source of the given figures.
type told coordinator.Stats

func (f told) Stats() coordinator.Stats { return coordinator.Stats(f) }

func (f told) Backlog(context.Context) (coordinator.Backlog, error) {
	return coordinator.Backlog{}, nil
}

// TestCluster: what was handed over is not owned any more, and each count of
// requests that were forwarded is its own.
func TestCluster(t *testing.T) {
	src := told{Acquired: 100, Lost: 7, Given: 30, Shards: 256, Forwarded: coordinator.Forwarded{Sent: 1, Repeated: 2, Failed: 3, Refused: 4}}
	expect(t, gather(t, registry(metrics.New(src, nil))), map[string]float64{
		"amends_shards_acquired_total": 100, "amends_shards_lost_total": 7, "amends_shards_given_total": 30, "amends_shards_owned": 63,
		"amends_shards": 256, "amends_forwarded_requests_total": 1, "amends_forward_repeated_total": 2, "amends_forward_failed_total": 3,
		"amends_forward_refused_total": 4,
	})
}
