package metrics_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator"
	"github.com/amends-dev/amends/coordinator/metrics"
	"github.com/amends-dev/amends/outbox"
)

// fake is a source that says what it is told.
type fake struct {
	services map[string]coordinator.ServiceStats
	err      error
	asked    int
}

func (f *fake) Stats() coordinator.Stats { return coordinator.Stats{Services: f.services} }
func (f *fake) Backlog(context.Context) (coordinator.Backlog, error) {
	f.asked++
	return coordinator.Backlog{
		Unfinished: map[coordinator.StateOf]int64{{Kind: "tcc", State: "parked"}: 3},
		Stalled:    map[string]int64{"saga": 2},
		Oldest:     map[string]time.Time{"saga": time.Now().Add(time.Hour)}, // another clock's
	}, f.err
}

// gather returns what a collector shows: by name and the values of its labels.
// The registry checks that it is what was described.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return got
}

func registry(c prometheus.Collector) *prometheus.Registry {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	return reg
}

func TestBacklogIsSampled(t *testing.T) {
	src := &fake{}
	reg := registry(metrics.New(src, &metrics.Config{SampleEvery: time.Hour}))
	for range 3 {
		expect(t, gather(t, reg), map[string]float64{
			"amends_backlog_sample_success": 1, "amends_unfinished_transactions tcc parked": 3,
			"amends_unfinished_transactions saga running": 0, "amends_stalled_transactions saga": 2,
			"amends_oldest_unfinished_age_seconds saga": 0, "amends_paused_transactions tcc": 0,
		})
	}
	if src.asked != 1 {
		t.Errorf("the store was asked %d times within one period", src.asked)
	}
}

// What is not known is absent, not zero.
func TestBacklogThatIsNotKnown(t *testing.T) {
	reg := registry(metrics.New(&fake{err: errors.New("away")}, nil))
	got := gather(t, reg)
	expect(t, got, map[string]float64{"amends_backlog_sample_success": 0})
	for name := range got {
		if name == "amends_stalled_transactions saga" || name == "amends_oldest_unfinished_age_seconds saga" {
			t.Errorf("%s is shown", name)
		}
	}
}

// Services that come and go cannot make labels without end.
func TestServicesAreBounded(t *testing.T) {
	of := func(n int) coordinator.ServiceStats {
		return coordinator.ServiceStats{Instances: n, Capacity: n, Waiting: n, InFlight: n, Transactions: n}
	}
	src := &fake{services: map[string]coordinator.ServiceStats{"a": of(1), "b": of(2), "c": of(4), "d": of(8)}}
	reg := registry(metrics.New(src, &metrics.Config{MaxServices: 2}))
	for _, name := range []string{"instances", "capacity", "calls_waiting", "calls_in_flight", "transactions"} {
		name = "amends_service_" + name + " "
		expect(t, gather(t, reg), map[string]float64{name + "a": 1, name + "b": 2, name + metrics.OtherServices: 12})
	}
	src.services = map[string]coordinator.ServiceStats{"0": of(1), "a": of(3)}
	got := gather(t, reg)
	expect(t, got, map[string]float64{"amends_service_instances a": 3, "amends_service_instances " + metrics.OtherServices: 1})
	if _, there := got["amends_service_instances 0"]; there {
		t.Error("a service that came later has a label of its own")
	}
}

type fakeRelay struct{}

func (fakeRelay) Stats() outbox.RelayStats {
	return outbox.RelayStats{Published: 1, Skipped: 2, Duplicates: 3, Dead: 4, Failures: 5, KeysErrors: 6,
		LeasesTaken: 7, LeasesLost: 8, LateArrivals: 9, Aside: 10, Streamed: 11, Fallbacks: 12}
}

func TestRelay(t *testing.T) {
	counts := map[string]float64{
		"amends_outbox_published_total": 1, "amends_outbox_skipped_total": 2, "amends_outbox_duplicates_total": 3,
		"amends_outbox_dead_total": 4, "amends_outbox_failures_total": 5, "amends_outbox_keys_errors_total": 6,
		"amends_outbox_leases_taken_total": 7, "amends_outbox_leases_lost_total": 8, "amends_outbox_late_arrivals_total": 9,
		"amends_outbox_aside_total": 10, "amends_outbox_streamed_total": 11, "amends_outbox_fallbacks_total": 12,
	}
	got := gather(t, registry(metrics.NewRelay(fakeRelay{}, nil)))
	expect(t, got, counts)
	if len(got) != len(counts) {
		t.Errorf("without a depth it shows %v", got)
	}
	var err error
	depth := func(context.Context) (outbox.Backlog, error) {
		return outbox.Backlog{Rows: 10, Oldest: 1500 * time.Millisecond, Dead: 11, Delayed: 12, Parked: 13}, err
	}
	known := registry(metrics.NewRelay(fakeRelay{}, &metrics.RelayConfig{Depth: depth}))
	expect(t, gather(t, known), map[string]float64{
		"amends_outbox_sample_success": 1, "amends_outbox_messages": 10, "amends_outbox_oldest_age_seconds": 1.5,
		"amends_outbox_dead_letters": 11, "amends_outbox_delayed_messages": 12, "amends_outbox_parked_messages": 13,
	})
	err = errors.New("away")
	got = gather(t, registry(metrics.NewRelay(fakeRelay{}, &metrics.RelayConfig{Depth: depth})))
	if _, there := got["amends_outbox_messages"]; there || got["amends_outbox_sample_success"] != 0 || got["amends_outbox_dead_total"] != 4 {
		t.Errorf("while the database is away it shows %v", got)
	}
}

func TestHandlerRefusesTheSameTwice(t *testing.T) {
	if _, err := metrics.Handler(metrics.New(still{}, nil), metrics.New(still{}, nil)); err == nil {
		t.Error("two coordinators' collectors in one handler are no error")
	}
}
