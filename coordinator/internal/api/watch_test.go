package api_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
)

func record(gid string) store.Record {
	return store.Record{GID: gid, Kind: "saga", Name: "transfer", State: uint8(txn.Running)}
}

// watching reads a watch to its end, and calls seen after each event.
func (h *host) watching(ctx context.Context, gid string, after int64, seen func(seq int64)) ([]int64, error) {
	stream, err := h.admin.WatchTransaction(ctx, &amendsv1.WatchTransactionRequest{Gid: gid, AfterSeq: after})
	if err != nil {
		return nil, err
	}
	var seqs []int64
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return seqs, nil
		}
		if err != nil {
			return seqs, err
		}
		seqs = append(seqs, resp.GetEvent().GetSeq())
		if seen != nil {
			seen(resp.GetEvent().GetSeq())
		}
	}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A watch sends what there was, then what happens, and ends after the last
// event; from whichever number it is resumed. Woken or by its own looking.
func TestWatch(t *testing.T) {
	for name, deaf := range map[string]bool{"woken": false, "polling": true} {
		t.Run(name, func(t *testing.T) {
			poll := time.Hour // waking alone must do
			if deaf {
				poll = time.Millisecond
			}
			h := newHost(t, api.Config{WatchPoll: poll})
			h.deaf = deaf
			h.start(t, transfer("g"))
			got, err := h.watching(bounded(t), "g", 0, func(seq int64) {
				switch seq {
				case 1, 2:
					h.moveTo(t, "g", txn.RollingBack)
				case 3:
					h.moveTo(t, "g", txn.RolledBack)
				}
			})
			if noErr(t, err); !slices.Equal(got, []int64{1, 2, 3, 4}) {
				t.Errorf("%v", got)
			}
			for after, want := range [][]int64{{1, 2, 3, 4}, {2, 3, 4}, {3, 4}, {4}, nil, nil} {
				got, err := h.watching(bounded(t), "g", int64(after), nil)
				if noErr(t, err); !slices.Equal(got, want) {
					t.Errorf("after %d: %v", after, got)
				}
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.subs != 0 {
				t.Errorf("%d subscriptions were not given back", h.subs)
			}
		})
	}
}

func TestWatchLongTrail(t *testing.T) {
	h := newHost(t, api.Config{})
	rec := record("g")
	rec.State = uint8(txn.Committed)
	_, err := h.write(t.Context(), rec, slices.Repeat([]string{"replied"}, 1000)...)
	noErr(t, err)
	got, err := h.watching(bounded(t), "g", 0, nil)
	if noErr(t, err); len(got) != 1000 || !slices.IsSorted(got) || got[999] != 1000 {
		t.Errorf("%d events", len(got))
	}
}

func TestWatchNotFound(t *testing.T) {
	h := newHost(t, api.Config{})
	_, err := h.watching(bounded(t), "none", 0, nil)
	wantErr(t, err, amendsv1.ErrNotFound, `"none"`, "purged")
	_, err = h.watching(bounded(t), "g", -1, nil)
	wantErr(t, err, amendsv1.ErrInvalidArgument, "after_seq")
}

// A transaction that is purged while somebody resumes after its end is told to
// be gone, never silence.
func TestWatchPurged(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	h.moveTo(t, "g", txn.Committed)
	if n, err := h.st.Purge(t.Context(), time.Now().AddDate(10, 0, 0), 10); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	for _, after := range []int64{0, 1, 2} {
		_, err := h.watching(bounded(t), "g", after, nil)
		wantErr(t, err, amendsv1.ErrNotFound, `"g"`, "purged")
	}
}

// vanishing loses a transaction between a watch's two reads.
type vanishing struct {
	store.Store
}

func (v vanishing) Events(ctx context.Context, gid string, after int64, limit int) ([]store.Event, error) {
	if _, err := v.Purge(ctx, time.Now().AddDate(10, 0, 0), 10); err != nil {
		return nil, err
	}
	return v.Store.Events(ctx, gid, after, limit)
}

func TestWatchPurgedInBetween(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	h.moveTo(t, "g", txn.Committed)
	srv, err := api.New(h.fakeEngine, vanishing{h.st}, nil, &api.Config{WatchPoll: time.Millisecond})
	noErr(t, err)
	h.admin = amendsv1.NewAdminServiceClient(dial(t, srv))
	_, err = h.watching(bounded(t), "g", 0, nil)
	wantErr(t, err, amendsv1.ErrNotFound)
}

func TestWatchEndsWithItsCaller(t *testing.T) {
	h := newHost(t, api.Config{})
	h.start(t, transfer("g"))
	ctx, cancel := context.WithCancel(bounded(t))
	_, err := h.watching(ctx, "g", 0, func(int64) { cancel() })
	wantErr(t, err, context.Canceled)
}
