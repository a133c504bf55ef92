// Package meter counts, and knows of no monitoring system.
package meter

import (
	"maps"
	"slices"
	"sync"
)

// Tally counts by key. Its keys come from a fixed set, which is there from the
// start with zeros, so that whoever reads rates sees the first count, too. Safe
// for concurrent use.
type Tally[K comparable] struct {
	mu     sync.Mutex
	counts map[K]uint64
}

// NewTally returns a tally of zeros for the keys.
func NewTally[K comparable](keys ...K) *Tally[K] {
	t := &Tally[K]{counts: make(map[K]uint64, len(keys))}
	for _, k := range keys {
		t.counts[k] = 0
	}
	return t
}

// Add counts one more. A key that NewTally was not given is not counted: the
// set stays what it is.
func (t *Tally[K]) Add(key K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, known := t.counts[key]; known {
		t.counts[key] = n + 1
	}
}

// All returns the counts so far.
func (t *Tally[K]) All() map[K]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}

// Histogram counts values by size. Safe for concurrent use.
type Histogram struct {
	mu     sync.Mutex
	bounds []float64
	counts []uint64 // by the first bound that is not below the value; the last has none
	sum    float64
}

// NewHistogram returns a histogram with the upper bounds of its buckets, in
// ascending order.
func NewHistogram(bounds ...float64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]uint64, len(bounds)+1)}
}

// Observe counts a value.
func (h *Histogram) Observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[i]++
	h.sum += v
}

// Snapshot is what a histogram counted.
type Snapshot struct {
	Bounds []float64 // upper bounds, inclusive, ascending
	Counts []uint64  // how many values were at most the bound of the same index
	Count  uint64    // of all values
	Sum    float64   // of all values
}

// Snapshot returns the counts so far.
func (h *Histogram) Snapshot() Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Snapshot{Bounds: h.bounds, Counts: make([]uint64, len(h.bounds)), Sum: h.sum}
	for i, n := range h.counts {
		s.Count += n
		if i < len(s.Counts) {
			s.Counts[i] = s.Count
		}
	}
	return s
}
