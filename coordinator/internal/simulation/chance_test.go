package simulation

import (
	"fmt"
	"hash/fnv"
	"sync"
	"time"
)

// chance decides what happens. Each answer is a hash of the seed and of the
// words that name the event.
type chance struct {
	seed uint64

	mu    sync.Mutex
	times map[string]int
}

func newChance(seed uint64) *chance { return &chance{seed: seed, times: map[string]int{}} }

// hash spreads the seed and the words over 64 bits.
func (c *chance) hash(words ...any) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, c.seed) // never fails
	for _, w := range words {
		_, _ = fmt.Fprint(h, "\x00", w)
	}
	x := h.Sum64()
	for range 2 { // FNV alone mixes its last bytes badly
		x ^= x >> 33
		x *= 0xff51afd7ed558ccd
	}
	return x ^ x>>33
}

// happens is true with probability p.
func (c *chance) happens(p float64, words ...any) bool {
	return float64(c.hash(words...)>>11)/(1<<53) < p
}

// pick is one of 0 to n-1.
func (c *chance) pick(n int, words ...any) int {
	return int(c.hash(words...) % uint64(n)) //nolint:gosec // n is small
}

// upTo is a duration above 0, of any number of nanoseconds, so that hardly two
// are the same.
func (c *chance) upTo(limit time.Duration, words ...any) time.Duration {
	return 1 + time.Duration(c.hash(words...)%uint64(limit)) //nolint:gosec // positive
}

// between is a duration from low to high.
func (c *chance) between(low, high time.Duration, words ...any) time.Duration {
	return low + c.upTo(high-low, words...)
}

// nth counts what is named: 1 when it happens for the first time.
func (c *chance) nth(words ...any) int {
	key := fmt.Sprint(words...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times[key]++
	return c.times[key]
}
