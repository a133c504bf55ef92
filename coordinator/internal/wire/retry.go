package wire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

// Retry is r on the wire, nil when every value is the default.
func Retry(r txn.Retry) *amendsv1.RetryPolicy {
	if r == (txn.Retry{}) {
		return nil
	}
	return &amendsv1.RetryPolicy{
		Initial:     duration(r.Initial),
		Factor:      r.Factor,
		Cap:         duration(r.Cap),
		Jitter:      r.Jitter,
		Attempts:    int32(min(max(r.Attempts, -1), 1<<31-1)),
		CallTimeout: duration(r.CallTimeout),
	}
}

// FromRetry is the inverse of Retry. The error joins every value that cannot be
// kept and names its field; whether the others make sense is for
// txn.Retry.Validate.
func FromRetry(p *amendsv1.RetryPolicy) (txn.Retry, error) {
	if p == nil {
		return txn.Retry{}, nil
	}
	initial, err1 := FromDuration("retry.initial", p.GetInitial())
	ceiling, err2 := FromDuration("retry.cap", p.GetCap())
	timeout, err3 := FromDuration("retry.call_timeout", p.GetCallTimeout())
	r := txn.Retry{
		Initial: initial, Factor: p.GetFactor(), Cap: ceiling, Jitter: p.GetJitter(),
		Attempts: int(p.GetAttempts()), CallTimeout: timeout,
	}
	var err4 error
	if math.IsInf(r.Jitter, 0) { // JSON has no word for it
		err4 = fmt.Errorf("retry.jitter is %v, want at most 1; any negative number for none", r.Jitter)
	}
	return r, errors.Join(err1, err2, err3, err4)
}

// FromDuration is d as Go has it, 0 when it is absent. The error names the
// field of a duration that protobuf does not allow or that is over 292 years.
func FromDuration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, fmt.Errorf("%s: %w", field, err)
	}
	got := d.AsDuration() // saturates
	if int64(got/time.Second) != d.GetSeconds() {
		return 0, fmt.Errorf("%s is %d s, at most %d s are allowed", field, d.GetSeconds(), int64(math.MaxInt64/time.Second))
	}
	return got, nil
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
