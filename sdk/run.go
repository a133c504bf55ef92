package sdk

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/saga/txn"

	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
)

// The coordinator answers a wait after maxWait at the latest; one that comes
// back sooner than soonest without an end is not asked again at once.
const (
	maxWait = 30 * time.Second
	soonest = time.Second
)

// Run is one global transaction. It is only a name: copies are the same run,
// and nothing has to be closed.
type Run struct {
	client *Client
	gid    string
}

// Run returns the transaction with this gid, which may have been started
// elsewhere. It asks nobody: whether it exists shows when it is used.
func (c *Client) Run(gid string) *Run { return &Run{client: c, gid: gid} }

// GID returns the transaction's id.
func (r *Run) GID() string { return r.gid }

// Wait returns when the transaction has ended: nil when it committed
// everywhere, *RolledBackError when it is undone everywhere, *UnknownError when
// that could not be learned (ctx ended, no such gid, ErrUnauthenticated,
// ErrPermission), only a person can decide it (parked), or a person gave it up
// (ErrAbandoned). While the coordinator is unavailable it asks again until ctx
// ends.
func (r *Run) Wait(ctx context.Context) error {
	if err := r.client.usable(); err != nil {
		return fmt.Errorf("sdk: wait for %q: %w", r.gid, err)
	}
	return r.wait(ctx, 0)
}

// waitOn waits for the end of a transaction that is as the coordinator just said.
func (r *Run) waitOn(ctx context.Context, tx *amendsv1.Transaction) error {
	if done, err := answer(r.gid, tx); done {
		return err
	}
	return r.wait(ctx, stateOf(tx.GetState()))
}

// waitFor is how long a request that starts or decides may wait for the end. Its
// answer, which says that it is durable, is to come before the caller gives up.
func waitFor(ctx context.Context) *durationpb.Duration {
	wait := maxWait
	if until, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(until)*3/4)
	}
	return durationpb.New(max(wait, 0))
}

func (r *Run) wait(ctx context.Context, seen txn.State) error {
	req := &amendsv1.WaitTransactionRequest{Gid: r.gid, MaxWait: durationpb.New(maxWait)}
	for attempt := 1; ; {
		asked := time.Now()
		resp, err := retrying(ctx, r.client, "wait", req, r.client.rpc.WaitTransaction)
		if err != nil {
			return &UnknownError{GID: r.gid, State: seen, Err: err}
		}
		tx := resp.GetTransaction()
		if done, err := answer(r.gid, tx); done {
			return err
		}
		seen = stateOf(tx.GetState())
		if time.Since(asked) >= soonest {
			attempt = 1
			continue
		}
		if !sleep(ctx, backoff(attempt)) {
			return &UnknownError{GID: r.gid, State: seen, Err: ctx.Err()}
		}
		attempt++
	}
}

// answer turns a transaction into one of the three answers; done is false
// while it goes on by itself.
func answer(gid string, tx *amendsv1.Transaction) (done bool, err error) {
	cause := tx.GetCause()
	reason := txn.Reason{Branch: cause.GetBranch(), Code: cause.GetCode(), Message: cause.GetMessage()}
	switch state := stateOf(tx.GetState()); state {
	case txn.Committed:
		return true, nil
	case txn.RolledBack:
		return true, &RolledBackError{GID: gid, Step: reason.Branch, Code: reason.Code, Reason: reason.Message}
	case txn.Parked:
		return true, &UnknownError{GID: gid, State: state, Err: fmt.Errorf("an operator has to decide: %s", reason)}
	case txn.Abandoned:
		return true, &UnknownError{GID: gid, State: state, Err: fmt.Errorf("%w: %s", ErrAbandoned, reason)}
	}
	return false, nil
}

// State returns where the transaction stands, without waiting for its end.
func (r *Run) State(ctx context.Context) (txn.State, error) {
	if err := r.client.usable(); err != nil {
		return 0, fmt.Errorf("sdk: state of %q: %w", r.gid, err)
	}
	req := &amendsv1.WaitTransactionRequest{Gid: r.gid, MaxWait: durationpb.New(time.Millisecond)}
	resp, err := retrying(ctx, r.client, "state", req, r.client.rpc.WaitTransaction)
	if err != nil {
		return 0, fmt.Errorf("sdk: state of %q: %w", r.gid, err)
	}
	return stateOf(resp.GetTransaction().GetState()), nil
}

// Abort asks the transaction to turn back and returns when that is durable;
// Wait tells when everything is undone. A saga that is past its pivot, or has
// ended, stays as it is. Aborting again changes nothing. Reason is kept in the
// audit trail and shown to whoever waits.
func (r *Run) Abort(ctx context.Context, reason string) error {
	if err := r.client.usable(); err != nil {
		return fmt.Errorf("sdk: abort %q: %w", r.gid, err)
	}
	_, err := r.abort(ctx, &amendsv1.AbortTransactionRequest{Gid: r.gid, Reason: cleanText(reason)})
	return err
}

func (r *Run) abort(ctx context.Context, req *amendsv1.AbortTransactionRequest) (*amendsv1.Transaction, error) {
	resp, err := retrying(ctx, r.client, "abort", req, r.client.rpc.AbortTransaction)
	if err != nil {
		return nil, fmt.Errorf("sdk: abort %q: %w", r.gid, err)
	}
	return resp.GetTransaction(), nil
}
