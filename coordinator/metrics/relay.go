package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/outbox"
)

// RelaySource is what NewRelay shows; *outbox.Relay is one.
type RelaySource interface {
	Stats() outbox.RelayStats
}

var _ RelaySource = (*outbox.Relay)(nil)

// RelayConfig holds what may be left out. A nil *RelayConfig is all defaults.
type RelayConfig struct {
	// Depth asks how full the outbox is, for example with outbox.Depth, whose
	// cost grows with its rows. Default: nobody is asked, and the metrics about
	// it are not shown.
	Depth func(ctx context.Context) (outbox.Backlog, error)
	// SampleEvery and SampleTimeout are as in Config.
	SampleEvery, SampleTimeout time.Duration
}

// relay shows a relay and its outbox.
type relay struct {
	src    RelaySource
	counts []relayCount
	sample *sampler[outbox.Backlog] // nil: none

	sampled, messages, delayed, oldest, dead, parked family
}

type relayCount struct {
	family
	of func(*outbox.RelayStats) uint64
}

// NewRelay returns a collector of a relay's figures, and of its outbox's with
// RelayConfig.Depth. Every relay of one database shows the same outbox: take
// the max of them, not the sum.
func NewRelay(src RelaySource, cfg *RelayConfig) prometheus.Collector {
	r := &relay{
		src:      src,
		counts:   relayCounts(),
		sampled:  gauge("amends_outbox_sample_success", "1: the database answered the last question about the outbox; 0: it did not."),
		messages: gauge("amends_outbox_messages", "Messages that wait to be published."),
		delayed:  gauge("amends_outbox_delayed_messages", "Of them, those until their time, or behind one of their key."),
		oldest:   gauge("amends_outbox_oldest_age_seconds", "Age of the oldest message that waits; 0: none."),
		dead:     gauge("amends_outbox_dead_letters", "Messages that were moved to the dead letters and are still there."),
		parked:   gauge("amends_outbox_parked_messages", "Of the dead letters, those whose key is parked."),
	}
	if cfg != nil && cfg.Depth != nil {
		r.sample = newSampler(cfg.Depth, cfg.SampleEvery, cfg.SampleTimeout)
	}
	return r
}

func relayCounts() []relayCount {
	return []relayCount{
		{counter("amends_outbox_published_total", "Messages that were acknowledged."),
			func(s *outbox.RelayStats) uint64 { return s.Published }},
		{counter("amends_outbox_skipped_total", "Messages found in the log after a takeover, and not published again."),
			func(s *outbox.RelayStats) uint64 { return s.Skipped }},
		{counter("amends_outbox_duplicates_total", "Messages dropped because of their idempotency key."),
			func(s *outbox.RelayStats) uint64 { return s.Duplicates }},
		{counter("amends_outbox_dead_total", "Messages moved to the dead letters."),
			func(s *outbox.RelayStats) uint64 { return s.Dead }},
		{counter("amends_outbox_failures_total", "Failed attempts to publish a message."),
			func(s *outbox.RelayStats) uint64 { return s.Failures }},
		{counter("amends_outbox_keys_errors_total", "Questions to Redis that failed."),
			func(s *outbox.RelayStats) uint64 { return s.KeysErrors }},
		{counter("amends_outbox_leases_taken_total", "Partitions taken over."),
			func(s *outbox.RelayStats) uint64 { return s.LeasesTaken }},
		{counter("amends_outbox_leases_lost_total", "Partitions found to be another's, or past their lease."),
			func(s *outbox.RelayStats) uint64 { return s.LeasesLost }},
		{counter("amends_outbox_late_arrivals_total", "Rows that became visible behind the cursor."),
			func(s *outbox.RelayStats) uint64 { return s.LateArrivals }},
		{counter("amends_outbox_aside_total", "Messages put aside, until their time or behind one of their key."),
			func(s *outbox.RelayStats) uint64 { return s.Aside }},
		{counter("amends_outbox_streamed_total", "Messages that came from the source, not from a table."),
			func(s *outbox.RelayStats) uint64 { return s.Streamed }},
		{counter("amends_outbox_fallbacks_total", "Times that a partition went back from the source to its table."),
			func(s *outbox.RelayStats) uint64 { return s.Fallbacks }},
	}
}

// Describe implements prometheus.Collector.
func (r *relay) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range r.counts {
		ch <- c.desc
	}
	for _, f := range []family{r.sampled, r.messages, r.delayed, r.oldest, r.dead, r.parked} {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector. It asks the database at most once
// in RelayConfig.SampleEvery.
func (r *relay) Collect(ch chan<- prometheus.Metric) {
	s := r.src.Stats()
	for _, c := range r.counts {
		emit(ch, c.family, c.of(&s))
	}
	if r.sample == nil {
		return
	}
	b, err := r.sample.get()
	if err != nil {
		emit(ch, r.sampled, 0)
		return
	}
	emit(ch, r.sampled, 1)
	emit(ch, r.messages, b.Rows)
	emit(ch, r.delayed, b.Delayed)
	emit(ch, r.parked, b.Parked)
	emit(ch, r.oldest, b.Oldest.Seconds())
	emit(ch, r.dead, b.Dead)
}
