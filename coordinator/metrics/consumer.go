package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/outbox/inbox"
)

// ConsumerSource is what NewConsumer shows; *inbox.Consumer is one.
type ConsumerSource interface {
	Stats() inbox.ConsumerStats
}

var _ ConsumerSource = (*inbox.Consumer)(nil)

// consumer shows a consumer of messages.
type consumer struct {
	src    ConsumerSource
	counts []consumerCount
	now    []consumerGauge
}

type consumerCount struct {
	family
	of func(*inbox.ConsumerStats) uint64
}

type consumerGauge struct {
	family
	of func(*inbox.ConsumerStats) int64
}

// NewConsumer returns a collector of a consumer's figures. group is the label
// that tells it from others of the process: its consumer group, for example. The
// consumers of a group share its lag: take the sum of them.
func NewConsumer(group string, src ConsumerSource) prometheus.Collector {
	f := func(kind prometheus.ValueType, name, help string) family {
		return family{prometheus.NewDesc(name, help, nil, prometheus.Labels{"group": group}), kind}
	}
	count := func(name, help string) family {
		return f(prometheus.CounterValue, "amends_consumer_"+name+"_total", help)
	}
	gauge := func(name, help string) family { return f(prometheus.GaugeValue, "amends_consumer_"+name, help) }
	type stats = inbox.ConsumerStats
	return &consumer{
		src: src,
		counts: []consumerCount{
			{count("fetched", "Messages fetched, again after a rebalance too."), func(s *stats) uint64 { return s.Fetched }},
			{count("handled", "Messages whose handler's transaction committed."), func(s *stats) uint64 { return s.Handled }},
			{count("duplicates", "Messages that were handled before."), func(s *stats) uint64 { return s.Duplicates }},
			{count("failures", "Failed attempts of all kinds."), func(s *stats) uint64 { return s.Failures }},
			{count("retried", "Messages sent to a retry topic after they failed."), func(s *stats) uint64 { return s.Retried }},
			{count("parked", "Messages sent to a retry topic behind another one of their key."), func(s *stats) uint64 { return s.Parked }},
			{count("dead", "Messages sent to the dead letters."), func(s *stats) uint64 { return s.Dead }},
		},
		now: []consumerGauge{
			{gauge("lag_messages", "Messages that the group has not passed, of this consumer's partitions."), func(s *stats) int64 { return s.Lag }},
			{gauge("buffered_messages", "Messages fetched and not done."), func(s *stats) int64 { return s.Buffered }},
			{gauge("buffered_bytes", "What these count against the bound of the buffer."), func(s *stats) int64 { return s.BufferedBytes }},
			{gauge("paused_partitions", "Partitions that this consumer has and that are paused."), func(s *stats) int64 { return int64(s.Paused) }},
		},
	}
}

// Describe implements prometheus.Collector.
func (c *consumer) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.counts {
		ch <- f.desc
	}
	for _, f := range c.now {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector. It asks nobody but the consumer.
func (c *consumer) Collect(ch chan<- prometheus.Metric) {
	s := c.src.Stats()
	for _, f := range c.counts {
		emit(ch, f.family, f.of(&s))
	}
	for _, f := range c.now {
		emit(ch, f.family, f.of(&s))
	}
}
