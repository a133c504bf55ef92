package txn

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Defaults of Retry's zero values.
const (
	DefaultInitial     = 100 * time.Millisecond
	DefaultFactor      = 2.0
	DefaultCap         = time.Minute
	DefaultJitter      = 0.2
	DefaultCallTimeout = 10 * time.Second
)

// Retry says when a call whose outcome is unknown is tried again. Zero values
// stand for the defaults. What is owed (an undo, a confirm, a cancel, a step
// after the pivot) ignores Attempts: it is tried until it is answered.
type Retry struct {
	Initial     time.Duration `json:"initial,omitempty"`      // wait before the second attempt; 100 ms
	Factor      float64       `json:"factor,omitempty"`       // each wait is the last one times this; 2
	Cap         time.Duration `json:"cap,omitempty"`          // no wait is longer, but for jitter; 1 min
	Jitter      float64       `json:"jitter,omitempty"`       // waits vary by this fraction up and down; 0.2; negative means none
	Attempts    int           `json:"attempts,omitempty"`     // attempts in all; 0 means until the transaction's deadline
	CallTimeout time.Duration `json:"call_timeout,omitempty"` // an unanswered call is Unknown after this; 10 s
}

// WithDefaults returns r with each zero value replaced by its default.
func (r Retry) WithDefaults() Retry {
	if r.Initial == 0 {
		r.Initial = DefaultInitial
	}
	if r.Factor == 0 {
		r.Factor = DefaultFactor
	}
	if r.Cap == 0 {
		r.Cap = max(DefaultCap, r.Initial)
	}
	if r.Jitter == 0 {
		r.Jitter = DefaultJitter
	}
	if r.CallTimeout == 0 {
		r.CallTimeout = DefaultCallTimeout
	}
	return r
}

// Validate reports every value that makes no sense, joined.
func (r Retry) Validate() error {
	var errs []error
	bad := func(cond bool, field string, value any, want string) {
		if cond {
			errs = append(errs, fmt.Errorf("retry.%s is %v, want %s", field, value, want))
		}
	}
	bad(r.Initial < 0, "initial", r.Initial, "0 (100 ms) or more")
	bad(math.IsNaN(r.Factor) || r.Factor != 0 && (r.Factor < 1 || r.Factor > 100), "factor", r.Factor, "0 (2) or 1 to 100")
	bad(r.Cap < 0 || r.Cap > 0 && r.Cap < r.Initial, "cap", r.Cap, "0 (1 min) or at least initial")
	bad(math.IsNaN(r.Jitter) || math.IsInf(r.Jitter, 0) || r.Jitter > 1, "jitter", r.Jitter, "at most 1")
	bad(r.Attempts < 0, "attempts", r.Attempts, "0 (no limit) or more")
	bad(r.CallTimeout < 0, "call_timeout", r.CallTimeout, "0 (10 s) or more")
	return errors.Join(errs...)
}

// Delay is the wait after the given attempt (from 1) failed. rnd in [0,1)
// spreads it by Jitter, so that an outage's end is not a herd.
func (r Retry) Delay(attempt int, rnd float64) time.Duration {
	r = r.WithDefaults()
	d := float64(r.Initial) * math.Pow(r.Factor, float64(max(attempt, 1)-1))
	d = min(d, float64(r.Cap))
	if r.Jitter > 0 {
		d *= 1 + r.Jitter*(2*rnd-1)
	}
	return time.Duration(d)
}

// Exhausted reports whether no attempt may follow the given one.
func (r Retry) Exhausted(attempt int) bool { return r.Attempts > 0 && attempt >= r.Attempts }
