package metrics_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/outbox/inbox"
)

// consuming is a consumer that says what it is told.
type consuming inbox.ConsumerStats

func (c consuming) Stats() inbox.ConsumerStats { return inbox.ConsumerStats(c) }

// TestConsumers: two consumers of one process, each figure with its own value.
func TestConsumers(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(
		metrics.NewConsumer("bills", consuming{
			Fetched: 1, Handled: 2, Duplicates: 3, Retried: 4, Parked: 5, Dead: 6, Failures: 7, Buffered: 8, BufferedBytes: 9, Paused: 10, Lag: 11,
		}),
		metrics.NewConsumer("mail", consuming{Lag: 12}),
	)
	got := gather(t, reg)
	expect(t, got, map[string]float64{
		"amends_consumer_fetched_total bills": 1, "amends_consumer_handled_total bills": 2, "amends_consumer_duplicates_total bills": 3,
		"amends_consumer_retried_total bills": 4, "amends_consumer_parked_total bills": 5, "amends_consumer_dead_total bills": 6,
		"amends_consumer_failures_total bills": 7, "amends_consumer_buffered_messages bills": 8, "amends_consumer_buffered_bytes bills": 9,
		"amends_consumer_paused_partitions bills": 10, "amends_consumer_lag_messages bills": 11, "amends_consumer_lag_messages mail": 12,
	})
	if len(got) != 22 {
		t.Errorf("%d figures, want 11 of each: %v", len(got), got)
	}
	if err := reg.Register(metrics.NewConsumer("mail", consuming{})); err == nil {
		t.Error("two consumers with one label are taken")
	}
}
