package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator"
)

// family is one metric with all its labels' values.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

func histogram(name, help string, labels ...string) family {
	return family{desc: prometheus.NewDesc(name, help, labels, nil)}
}

// number is what counts and gauges come as.
type number interface {
	~int | ~int64 | ~uint64 | ~float64
}

func emit[N number](ch chan<- prometheus.Metric, f family, n N, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, f.kind, float64(n), labels...)
}

// emitBy emits a metric of one label.
func emitBy[N number](ch chan<- prometheus.Metric, f family, by map[string]N) {
	for label, n := range by {
		emit(ch, f, n, label)
	}
}

func emitHistogram(ch chan<- prometheus.Metric, f family, h coordinator.Histogram, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		buckets[bound] = h.Counts[i]
	}
	ch <- prometheus.MustNewConstHistogram(f.desc, h.Count, h.Sum, buckets, labels...)
}
