package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// ask makes a request of one member after the other, until one answers anything
// but Unavailable. What is not safe is asked once, unless the request certainly
// did not leave.
func (c *Cluster) ask(ctx context.Context, safe bool, opts []grpc.CallOption, call func(*link, []grpc.CallOption) error) error {
	until := time.Now().Add(c.cfg.RepeatFor)
	var left peer.Peer // of an attempt that reached a connection
	if !safe {
		opts = append(slices.Clip(opts), grpc.Peer(&left))
	}
	var last *link
	var before error
	for attempt := 1; ; attempt++ {
		l, err := c.pick(ctx, last, until)
		if err != nil {
			return after(err, before)
		}
		if err = call(l, opts); err == nil {
			return nil
		}
		err, again := c.judge(ctx, l, err)
		if !again || !safe && left.Addr != nil {
			return after(err, before)
		}
		wait := c.pause(attempt, err)
		if time.Now().Add(wait).After(until) {
			return err
		}
		if !sleep(ctx, wait) {
			return after(status.FromContextError(ctx.Err()).Err(), err)
		}
		last, before = l, err
	}
}

// pick returns the link whose turn it is, another one than last if there is
// another. Without one it waits until ctx ends or until.
func (c *Cluster) pick(ctx context.Context, last *link, until time.Time) (*link, error) {
	for {
		v := c.now.Load()
		switch n := uint64(len(v.ready)); {
		case v.closed:
			return nil, errClosed
		case n > 0:
			turn := c.turn.Add(1)
			if l := v.ready[turn%n]; l != last {
				return l, nil
			}
			return v.ready[(turn+1)%n], nil
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case <-v.replaced:
			timer.Stop()
		case <-timer.C:
			return nil, unreachable(v)
		case <-ctx.Done():
			timer.Stop()
			return nil, after(status.FromContextError(ctx.Err()).Err(), v.failure)
		}
	}
}

func unreachable(v *view) error {
	if v.failure == nil {
		return ErrUnavailable.With("no coordinator has answered yet")
	}
	return ErrUnavailable.With("no coordinator answers: %v", v.failure)
}

// judge says whether the error of a request means that another member may be
// asked, and notes what it says about this one.
func (c *Cluster) judge(ctx context.Context, l *link, err error) (_ error, again bool) {
	switch st := status.Convert(err); {
	case st.Code() == codes.Unavailable:
		if len(st.Details()) == 0 { // a coordinator's own error says why: its connection is well
			c.suspect(l, err)
		}
		return err, true
	case st.Code() == codes.Canceled && ctx.Err() == nil && l.life.Err() != nil: // the link was given up
		if c.now.Load().closed {
			return errClosed, false
		}
		return ErrUnavailable.With("the connection to %s was given up: %v", l.address, err), true
	}
	return err, false
}

// pause is how long to wait before the next attempt: not at all while there are
// members that were not asked yet, and as long as the coordinator wants in any
// case.
func (c *Cluster) pause(attempt int, err error) time.Duration {
	var wait time.Duration
	if n := max(1, len(c.now.Load().ready)); attempt >= n {
		wait = backoff(attempt - n + 1)
	}
	var known *CoordinatorError
	if errors.As(amendsv1.FromError(err), &known) {
		wait = max(wait, known.RetryAfter)
	}
	return wait
}

// after is the error of a request that was repeated.
func after(err, before error) error {
	if before == nil || status.Code(err) == codes.Unavailable {
		return err
	}
	return &repeatedError{err: err, before: before}
}

// repeatedError is what a request ended with after attempts that nobody answered.
// It has the status of the last one, and errors.Is finds both.
type repeatedError struct{ err, before error }

// Error tells both.
func (e *repeatedError) Error() string { return fmt.Sprintf("%v, after %v", e.err, e.before) }

// Unwrap returns both as the SDK knows them.
func (e *repeatedError) Unwrap() []error { return []error{fromError(e.err), fromError(e.before)} }

// GRPCStatus is that of the last attempt.
func (e *repeatedError) GRPCStatus() *status.Status { return status.Convert(e.err) }
