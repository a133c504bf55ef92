package metrics

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amends-dev/amends/coordinator"
)

// Defaults of Config and RelayConfig.
const (
	DefaultSampleEvery   = 10 * time.Second
	DefaultSampleTimeout = 5 * time.Second
	DefaultMaxServices   = 100
	DefaultMaxNamespaces = 100
)

// OtherServices is the label of all services together that came after
// Config.MaxServices others. No service has a space in its name.
const OtherServices = "other services"

// Config holds what may be left out. Zero values, and negative ones, stand for
// the defaults.
type Config struct {
	// SampleEvery is how long an answer of the store is shown again: unfinished,
	// stalled and paused transactions and the age of the oldest. Default 10 s.
	SampleEvery time.Duration
	// SampleTimeout bounds the wait for the store. Default 5 s.
	SampleTimeout time.Duration
	// MaxServices is how many services have a label of their own for as long as
	// the process lives. Default 100.
	MaxServices int
	// MaxNamespaces is how many namespaces with a quota are shown, those that
	// come first, for as long as the process lives. Default 100.
	MaxNamespaces int
}

// Source is what New shows; *coordinator.Coordinator is one.
type Source interface {
	Stats() coordinator.Stats
	Backlog(ctx context.Context) (coordinator.Backlog, error)
}

var _ Source = (*coordinator.Coordinator)(nil)

// collector shows a coordinator.
type collector struct {
	src      Source
	f        families
	sample   *sampler[coordinator.Backlog]
	services *bounded

	namespaces *bounded
}

// New returns a collector of a coordinator's figures. What it shows of the
// store (amends_unfinished_transactions and what follows it in the docs) is the
// same from every coordinator of a store: take the max of them, not the sum.
func New(src Source, cfg *Config) prometheus.Collector {
	var c Config
	if cfg != nil {
		c = *cfg
	}
	if c.MaxServices <= 0 {
		c.MaxServices = DefaultMaxServices
	}
	if c.MaxNamespaces <= 0 {
		c.MaxNamespaces = DefaultMaxNamespaces
	}
	return &collector{
		src: src, f: newFamilies(), services: newBounded(c.MaxServices), namespaces: newBounded(c.MaxNamespaces),
		sample: newSampler(src.Backlog, c.SampleEvery, c.SampleTimeout),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.f.all() {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector. It asks the store at most once in
// Config.SampleEvery.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.transactions(ch, c.src.Stats())
	c.backlog(ch)
}

func (c *collector) transactions(ch chan<- prometheus.Metric, s coordinator.Stats) {
	f := &c.f
	emitBy(ch, f.started, s.Started)
	for in, n := range s.Finished {
		emit(ch, f.finished, n, in.Kind, in.State)
	}
	emit(ch, f.stalls, s.Stalled)
	emitBy(ch, f.verbs, s.Verbs)
	emitBy(ch, f.refused, s.Refused)
	emitBy(ch, f.bulk, s.Bulk)
	emit(ch, f.live, s.Live, "started")
	emit(ch, f.live, s.Owed, "taken_over")
	emit(ch, f.liveLimit, s.MaxLive)

	emitBy(ch, f.calls, s.Calls)
	emitBy(ch, f.retries, s.Retries)
	for end, n := range s.Outcomes {
		emit(ch, f.outcomes, n, end.Op, end.Outcome)
	}
	for op, answers := range s.Answers {
		emitHistogram(ch, f.answers, answers, op)
	}
	for name, sv := range c.services.merge(s.Services) {
		emit(ch, f.instances, sv.Instances, name)
		emit(ch, f.capacity, sv.Capacity, name)
		emit(ch, f.callsWaiting, sv.Waiting, name)
		emit(ch, f.callsInFlight, sv.InFlight, name)
		emit(ch, f.waiting, sv.Transactions, name)
	}

	c.quotas(ch, s.Quotas)

	emitHistogram(ch, f.commit, s.Commit)
	emitHistogram(ch, f.batch, s.Batch)
	emit(ch, f.commitErrors, s.CommitErrors)
	emit(ch, f.acquired, s.Acquired)
	emit(ch, f.lost, s.Lost)
	emit(ch, f.given, s.Given)
	emit(ch, f.owned, int64(s.Acquired)-int64(s.Lost)-int64(s.Given)) //nolint:gosec // far below 2^63
	emit(ch, f.shards, s.Shards)
	emit(ch, f.forwarded, s.Forwarded.Sent)
	emit(ch, f.forwardRepeated, s.Forwarded.Repeated)
	emit(ch, f.forwardFailed, s.Forwarded.Failed)
	emit(ch, f.forwardRefused, s.Forwarded.Refused)
}

// quotas shows the first Config.MaxNamespaces; those behind them only count
// among what is refused in all.
func (c *collector) quotas(ch chan<- prometheus.Metric, all map[string]coordinator.QuotaStats) {
	for _, namespace := range slices.Sorted(maps.Keys(all)) {
		if !c.namespaces.admits(namespace) {
			continue
		}
		q, f := all[namespace], &c.f
		emit(ch, f.quotaUse, q.Now, namespace)
		emit(ch, f.quotaLive, q.Live, namespace)
		emit(ch, f.quotaRate, q.StartsPerSecond, namespace)
		emit(ch, f.quotaRefused, q.Refused, namespace)
	}
}

// backlog shows what the store holds. While it does not answer there is only
// the metric that says so: figures of a while ago would look well.
func (c *collector) backlog(ch chan<- prometheus.Metric) {
	b, err := c.sample.get()
	if err != nil {
		emit(ch, c.f.sampled, 0)
		return
	}
	emit(ch, c.f.sampled, 1)
	now := time.Now()
	for _, kind := range kinds {
		for _, state := range unfinishedStates {
			emit(ch, c.f.unfinished, b.Unfinished[coordinator.StateOf{Kind: kind, State: state}], kind, state)
		}
		emit(ch, c.f.stalled, b.Stalled[kind], kind)
		emit(ch, c.f.paused, b.Paused[kind], kind)
		age := 0.0
		if at, ok := b.Oldest[kind]; ok {
			age = max(0, now.Sub(at).Seconds())
		}
		emit(ch, c.f.oldest, age, kind)
	}
}

var (
	kinds            = [...]string{"saga", "tcc", "bulk"}
	unfinishedStates = [...]string{"running", "committing", "rolling_back", "parked"}
)
