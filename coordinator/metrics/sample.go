package metrics

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/amends-dev/amends/coordinator"
)

// sampler asks a database now and then, and gives the same answer in between.
type sampler[T any] struct {
	ask            func(context.Context) (T, error)
	every, timeout time.Duration

	mu    sync.Mutex // held while it asks: scrapes at once share one answer
	asked time.Time
	last  T
	err   error
}

func newSampler[T any](ask func(context.Context) (T, error), every, timeout time.Duration) *sampler[T] {
	if every <= 0 {
		every = DefaultSampleEvery
	}
	if timeout <= 0 {
		timeout = DefaultSampleTimeout
	}
	return &sampler[T]{ask: ask, every: every, timeout: timeout}
}

// get returns what the database said within the last period; an error is kept
// as long.
func (s *sampler[T]) get() (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked.IsZero() || time.Since(s.asked) >= s.every {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout) // a collector is given none
		defer cancel()
		s.last, s.err = s.ask(ctx)
		s.asked = time.Now()
	}
	return s.last, s.err
}

// bounded keeps the first services that come as they are named, and adds up
// the rest.
type bounded struct {
	limit int

	mu    sync.Mutex
	known map[string]bool
}

func newBounded(limit int) *bounded { return &bounded{limit: limit, known: map[string]bool{}} }

// admits reports whether a name is one of the first that came.
func (b *bounded) admits(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.known) < b.limit {
		b.known[name] = true
	}
	return b.known[name]
}

func (b *bounded) merge(services map[string]coordinator.ServiceStats) map[string]coordinator.ServiceStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[string]coordinator.ServiceStats, len(services))
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		if !b.known[name] && len(b.known) >= b.limit {
			name = OtherServices
		} else {
			b.known[name] = true
		}
		sum := out[name]
		sum.Instances += s.Instances
		sum.Capacity += s.Capacity
		sum.Waiting += s.Waiting
		sum.InFlight += s.InFlight
		sum.Transactions += s.Transactions
		out[name] = sum
	}
	return out
}
