package metrics_test

import (
	"fmt"
	"testing"

	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/outbox"
)

type fakeWriter struct{}

func (fakeWriter) Stats() outbox.Stats {
	shed := map[string]uint64{"orders": 1}
	for i := range 200 {
		shed[fmt.Sprintf("topic-%03d", i)] = 5
	}
	return outbox.Stats{Shed: shed, Rejected: 2, Blocked: 3}
}

// TestWriter: what was shed by topic, of so many topics.
func TestWriter(t *testing.T) {
	got := gather(t, registry(metrics.NewWriter(fakeWriter{})))
	expect(t, got, map[string]float64{
		"amends_outbox_shed_total orders": 1, "amends_outbox_shed_total topic-000": 5,
		"amends_outbox_rejected_total": 2, "amends_outbox_waiting_writers": 3,
	})
	if len(got) != 102 {
		t.Errorf("%d figures, want those of 100 topics and two", len(got))
	}
}
