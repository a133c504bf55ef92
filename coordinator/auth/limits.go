package auth

import (
	"sync"
	"time"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// bucket is a token bucket that holds one second's worth, and one at least.
type bucket struct {
	left float64
	at   time.Time
}

// take takes one, or tells how long it lasts until there is one.
func (b *bucket) take(now time.Time, rate float64) time.Duration {
	b.fill(now, rate)
	if b.left < 1 {
		return time.Duration((1 - b.left) / rate * float64(time.Second))
	}
	b.left--
	return 0
}

// fill reports whether the bucket is full.
func (b *bucket) fill(now time.Time, rate float64) bool {
	most := max(rate, 1)
	if b.at.IsZero() {
		b.left = most
	}
	b.left = min(most, b.left+now.Sub(b.at).Seconds()*rate)
	b.at = now
	return b.left == most
}

// limits are what one subject may use. They count by subject, not by token, so
// that a second token gives nothing more.
type limits struct {
	rate    float64 // requests per second; below 0: any
	streams int     // at a time; below 0: any

	mu       sync.Mutex
	subjects map[string]*usage
	sweepAt  int // when there are so many subjects, idle ones are forgotten
}

type usage struct {
	bucket  bucket
	streams int
}

const sweepFrom = 1024

func newLimits(rate float64, streams int) *limits {
	return &limits{rate: rate, streams: streams, subjects: map[string]*usage{}, sweepAt: sweepFrom}
}

// request counts one.
func (l *limits) request(subject string) error {
	if l.rate < 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.of(subject).bucket.take(time.Now(), l.rate); wait > 0 {
		return amendsv1.ErrOverloaded.With("%s calls more often than %v times per second", subject, l.rate).WithRetryAfter(wait)
	}
	return nil
}

// stream counts one until release is called.
func (l *limits) stream(subject string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.of(subject)
	if l.streams >= 0 && u.streams >= l.streams {
		return nil, amendsv1.ErrOverloaded.With("%s has %d streams open already", subject, u.streams).WithRetryAfter(time.Second)
	}
	u.streams++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		u.streams--
	}, nil
}

func (l *limits) of(subject string) *usage {
	u := l.subjects[subject]
	if u == nil {
		if len(l.subjects) >= l.sweepAt {
			l.sweep(time.Now())
		}
		u = &usage{}
		l.subjects[subject] = u
	}
	return u
}

// sweep forgets those who use nothing: they begin as they are.
func (l *limits) sweep(now time.Time) {
	for subject, u := range l.subjects {
		if u.streams == 0 && (l.rate < 0 || u.bucket.fill(now, l.rate)) {
			delete(l.subjects, subject)
		}
	}
	l.sweepAt = max(sweepFrom, 2*len(l.subjects))
}
