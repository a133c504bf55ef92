package api

import (
	"context"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/grpc"
)

// watchPage is how many events are read at once.
const watchPage = 256

// WatchTransaction sends the audit events of one transaction after a given
// number, those that exist first, and ends after the last of a finished one.
func (a *admin) WatchTransaction(req *amendsv1.WatchTransactionRequest,
	stream grpc.ServerStreamingServer[amendsv1.WatchTransactionResponse],
) error {
	ctx := stream.Context()
	key, err := a.key(ctx, req.GetGid())
	if err == nil && req.GetAfterSeq() < 0 {
		err = amendsv1.ErrInvalidArgument.With("after_seq is %d: it must not be negative", req.GetAfterSeq())
	}
	if err == nil {
		w := watch{admin: a, key: key, sent: req.GetAfterSeq(), send: stream.Send}
		err = w.run(ctx)
	}
	if err != nil {
		return a.fail(ctx, err)
	}
	return nil
}

// watch is one call of WatchTransaction.
type watch struct {
	*admin
	key  string
	sent int64 // number of the last event that went out
	send func(*amendsv1.WatchTransactionResponse) error
}

// run follows the store, where the truth is. Changed makes it quick; the
// ticker finds what another coordinator writes.
func (w *watch) run(ctx context.Context) error {
	ticker := time.NewTicker(w.cfg.WatchPoll)
	defer ticker.Stop()
	for {
		ended, err := w.round(ctx, ticker.C)
		if ended || err != nil {
			return err
		}
	}
}

// round sends what there is, then waits for more. It subscribes before it
// reads, so that nothing happens unseen in between.
func (w *watch) round(ctx context.Context, tick <-chan time.Time) (ended bool, err error) {
	changed, unsubscribe := w.engine.Changed(w.key)
	defer unsubscribe()
	rec, err := w.load(ctx, w.key)
	if err != nil {
		return false, err
	}
	if err := w.sendNew(ctx); err != nil {
		return false, err
	}
	if !rec.FinishedAt.IsZero() && w.sent >= rec.EventSeq {
		return true, nil
	}
	select {
	case <-changed:
	case <-tick:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return false, nil
}

// sendNew sends every event that the store has after the last one sent.
func (w *watch) sendNew(ctx context.Context) error {
	for {
		events, err := w.store.Events(ctx, w.key, w.sent, watchPage)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if err := w.send(&amendsv1.WatchTransactionResponse{Event: wire.Event(ev)}); err != nil {
				return err
			}
			w.sent = ev.Seq
		}
		if len(events) < watchPage {
			return nil
		}
	}
}
