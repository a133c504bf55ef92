package forward

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// maxWait is what the handler makes of a longer max_wait, and of none.
const maxWait = time.Minute

// While nobody is known to own its shard, a wait looks into the store for so
// long, and then whether somebody does.
const (
	firstSlice = 50 * time.Millisecond
	lastSlice  = time.Second
)

// wait forwards a WaitTransaction, so that the caller hears of the end when it
// happens. It never fails for want of an owner: any member finds the end in the
// store, a little later.
func (f *Forwarder) wait(ctx context.Context, r *request) (any, error) {
	req := r.msg.(*amendsv1.WaitTransactionRequest)
	left := maxWait
	if req.GetMaxWait() != nil {
		left = min(left, req.GetMaxWait().AsDuration())
	}
	if left <= 0 || !r.to.known() { // it only looks, or is refused
		return r.next(ctx, req)
	}
	until, slice := time.Now().Add(left), firstSlice
	for {
		resp, err := f.once(ctx, r.waiting("max_wait", time.Until(until)))
		if !errors.Is(err, amendsv1.ErrNotOwner) {
			return resp, err
		}
		f.repeated.Add(1)
		f.refresh(ctx)
		last := time.Until(until) <= slice
		resp, err = r.next(ctx, r.waiting("max_wait", min(time.Until(until), slice)).msg)
		switch moving := errors.Is(err, amendsv1.ErrNotOwner); {
		case moving && !last: // it came here meanwhile, and left
			if err := pause(ctx, slice); err != nil {
				return nil, err
			}
		case err != nil || last || settled(resp):
			return resp, err
		}
		slice = min(2*slice, lastSlice)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// waiting is r with as much of its wait as is left, in the field of that name.
func (r *request) waiting(field string, left time.Duration) *request {
	again := *r
	again.msg = proto.Clone(r.msg)
	set(again.msg, field, protoreflect.ValueOfMessage(durationpb.New(max(left, 0)).ProtoReflect()))
	return &again
}

// waitOf is how long a start or a decision is to wait for the transaction's end.
func waitOf(req any) time.Duration {
	if w, ok := req.(interface{ GetWait() *durationpb.Duration }); ok {
		return min(w.GetWait().AsDuration(), maxWait)
	}
	return 0
}

// settled tells whether there is nothing more to wait for.
func settled(resp any) bool {
	switch resp.(*amendsv1.WaitTransactionResponse).GetTransaction().GetState() {
	case amendsv1.State_STATE_COMMITTED, amendsv1.State_STATE_ROLLED_BACK, amendsv1.State_STATE_ABANDONED, amendsv1.State_STATE_PARKED:
		return true
	}
	return false
}
