package load

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Figures is what clients saw.
type Figures struct {
	Requests   int            `json:"requests"`   // starts, appends and verbs that had an answer
	Failed     int            `json:"failed"`     // requests that failed, for a reason that is not their own
	Errors     []string       `json:"errors"`     // of failed ones, some
	Overloaded int            `json:"overloaded"` // starts that the coordinator had no room for
	Started    map[string]int `json:"started"`    // acknowledged starts, by name
	Told       map[string]int `json:"told"`       // ends that somebody waited for, by name and end
	Verbs      map[string]int `json:"verbs"`      // acknowledged, by name
	Refused    int            `json:"refused"`    // verbs that were not legal where the transaction stood

	// AckMedian, AckP99 and AckMax are of starts, until they were acknowledged, in
	// milliseconds.
	AckMedian float64 `json:"ack_median_ms"`
	AckP99    float64 `json:"ack_p99_ms"`
	AckMax    float64 `json:"ack_max_ms"`
}

const (
	maxErrors = 20
	maxErrLen = 300
	maxAcks   = 4_000_000
)

// counting collects figures.
type counting struct {
	mu   sync.Mutex
	f    Figures
	acks []time.Duration
}

func newCounting() *counting {
	return &counting{f: Figures{Started: map[string]int{}, Told: map[string]int{}, Verbs: map[string]int{}}}
}

func (c *counting) failed(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.f.Requests++
	c.f.Failed++
	if len(c.f.Errors) < maxErrors {
		text := what + ": " + err.Error()
		c.f.Errors = append(c.f.Errors, time.Now().UTC().Format(time.TimeOnly)+" "+text[:min(len(text), maxErrLen)])
	}
}

func (c *counting) started(name string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.f.Requests++
	c.f.Started[name]++
	if len(c.acks) < maxAcks {
		c.acks = append(c.acks, took)
	}
}

func (c *counting) add(what func(f *Figures)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what(&c.f)
}

// figures are those so far.
func (c *counting) figures() Figures {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.f
	f.AckMedian, f.AckP99, f.AckMax = quantile(c.acks, 0.5), quantile(c.acks, 0.99), quantile(c.acks, 1)
	return f
}

// quantile is in milliseconds; of nothing it is 0.
func quantile(of []time.Duration, q float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Clone(of)
	slices.SortFunc(sorted, cmp.Compare)
	at := int(q * float64(len(sorted)-1))
	return float64(sorted[at].Microseconds()) / 1000
}
