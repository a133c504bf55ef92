package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator/notify"
)

// NotifySource is what NewNotifier shows; *notify.Notifier is one.
type NotifySource interface {
	Stats() []notify.Stats
}

var _ NotifySource = (*notify.Notifier)(nil)

// notifier shows who is told of what becomes of transactions.
type notifier struct {
	src NotifySource

	queued, oldest, alerted, sent, failures, lost family
}

// NewNotifier returns a collector of a Notifier's figures, by the names of its
// subscribers.
func NewNotifier(src NotifySource) prometheus.Collector {
	return &notifier{
		src:      src,
		queued:   gauge("amends_notify_queued_events", "Events that wait to be delivered.", "sink"),
		oldest:   gauge("amends_notify_oldest_age_seconds", "Age of the first event that waits; 0: none.", "sink"),
		alerted:  gauge("amends_notify_alerted_transactions", "Transactions that the sink was alerted of and that have not resumed.", "sink"),
		sent:     counter("amends_notify_sent_total", "Events that the sink took.", "sink"),
		failures: counter("amends_notify_failures_total", "Deliveries that failed; they are repeated, unless the sink rejects them.", "sink"),
		lost:     counter("amends_notify_lost_total", "Events that the sink will never get.", "sink", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (n *notifier) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range []family{n.queued, n.oldest, n.alerted, n.sent, n.failures, n.lost} {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (n *notifier) Collect(ch chan<- prometheus.Metric) {
	for _, s := range n.src.Stats() {
		age := 0.0
		if !s.Oldest.IsZero() {
			age = max(0, time.Since(s.Oldest).Seconds())
		}
		emit(ch, n.queued, s.Queued, s.Name)
		emit(ch, n.oldest, age, s.Name)
		emit(ch, n.alerted, s.Alerts, s.Name)
		emit(ch, n.sent, s.Sent, s.Name)
		emit(ch, n.failures, s.Failures, s.Name)
		emit(ch, n.lost, s.Dropped, s.Name, "dropped")
		emit(ch, n.lost, s.Rejected, s.Name, "rejected")
	}
}
