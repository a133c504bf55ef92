package metrics

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/outbox"
)

// maxTopics is how many topics have a label of their own.
const maxTopics = 100

// WriterSource is what NewWriter shows; *outbox.Outbox is one.
type WriterSource interface {
	Stats() outbox.Stats
}

var _ WriterSource = (*outbox.Outbox)(nil)

// writer shows who writes into a bounded outbox.
type writer struct {
	src    WriterSource
	topics *bounded

	shed, rejected, waiting family
}

// NewWriter returns a collector of what the bounds of an outbox did to the
// messages that this process writes. The first 100 topics of which any were shed
// are shown.
func NewWriter(src WriterSource) prometheus.Collector {
	return &writer{
		src: src, topics: newBounded(maxTopics),
		shed:     counter("amends_outbox_shed_total", "Sheddable messages dropped because the outbox was full.", "topic"),
		rejected: counter("amends_outbox_rejected_total", "Messages refused because the outbox was full."),
		waiting:  gauge("amends_outbox_waiting_writers", "Writers that wait for room in the outbox."),
	}
}

// Describe implements prometheus.Collector.
func (w *writer) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range []family{w.shed, w.rejected, w.waiting} {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector. It asks nobody but the process.
func (w *writer) Collect(ch chan<- prometheus.Metric) {
	s := w.src.Stats()
	emit(ch, w.rejected, s.Rejected)
	emit(ch, w.waiting, s.Blocked)
	for _, topic := range slices.Sorted(maps.Keys(s.Shed)) {
		if w.topics.admits(topic) {
			emit(ch, w.shed, s.Shed[topic], topic)
		}
	}
}
