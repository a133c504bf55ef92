package api_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/coordinator/internal/api"
	"github.com/amends-dev/amends/coordinator/store"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

func (h *host) findEnded(ctx context.Context, t *testing.T, endedFor time.Duration, gids ...string) (ended, unknown []string) {
	t.Helper()
	resp, err := h.tx.FindEnded(ctx, &amendsv1.FindEndedRequest{Gids: gids, EndedFor: durationpb.New(endedFor)})
	noErr(t, err)
	return resp.GetEnded(), resp.GetUnknown()
}

// Ended is what has reached an end, and long enough ago; what only a person can
// move has not.
func TestFindEnded(t *testing.T) {
	h := newHost(t, api.Config{})
	var gids, ends []string
	for s := txn.Running; s.Valid(); s++ {
		gid := "g-" + s.String()
		gids = append(gids, gid)
		if h.start(t, transfer(gid)); s != txn.Running {
			h.moveTo(t, gid, s)
		}
		if s.Finished() {
			ends = append(ends, gid)
		}
	}
	if len(ends) != 3 || len(gids) != 7 {
		t.Fatalf("%v of %v end", ends, gids)
	}
	gids = append(gids, "none", "g")
	ended, unknown := h.findEnded(t.Context(), t, 0, gids...)
	if !slices.Equal(ended, ends) || !slices.Equal(unknown, []string{"none", "g"}) {
		t.Errorf("ended %q, unknown %q", ended, unknown)
	}
	for bound, want := range map[time.Duration]int{ // the engine of this test ended them when November began
		time.Since(h.now) - time.Minute: 3, time.Since(h.now) + time.Minute: 0,
	} {
		if ended, unknown := h.findEnded(t.Context(), t, bound, gids...); len(ended) != want || len(unknown) != 2 {
			t.Errorf("%v ago: ended %q, unknown %q", bound, ended, unknown)
		}
	}
	if ended, unknown := h.findEnded(as(t, "acme"), t, 0, gids...); len(ended) > 0 || !slices.Equal(unknown, gids) {
		t.Errorf("in another namespace: ended %q, unknown %q", ended, unknown)
	}
	if ended, unknown := h.findEnded(t.Context(), t, 0); len(ended)+len(unknown) > 0 {
		t.Errorf("of none: %q, %q", ended, unknown)
	}
}

func TestFindEndedOfMany(t *testing.T) {
	h := newHost(t, api.Config{})
	var gids []string
	for i := range 1000 {
		gids = append(gids, fmt.Sprintf("%s-%d", strings.Repeat("x", 120), i))
	}
	h.start(t, transfer(gids[999]))
	h.moveTo(t, gids[999], txn.Committed)
	ended, unknown := h.findEnded(t.Context(), t, 0, gids...)
	if !slices.Equal(ended, gids[999:]) || !slices.Equal(unknown, gids[:999]) {
		t.Errorf("%d ended, %d unknown", len(ended), len(unknown))
	}
	_, err := h.tx.FindEnded(t.Context(), &amendsv1.FindEndedRequest{Gids: append(gids, "more")})
	wantErr(t, err, amendsv1.ErrInvalidArgument, "1001 gids", "1000")
}

// failing is a store that answers no load.
type failing struct {
	store.Store
	err error
}

func (f failing) Load(context.Context, string) (store.Record, error) { return store.Record{}, f.err }

func TestFindEndedFails(t *testing.T) {
	h := newHost(t, api.Config{})
	for _, req := range []*amendsv1.FindEndedRequest{{Gids: []string{"g", ""}}, {Gids: []string{"a b"}}} {
		_, err := h.tx.FindEnded(t.Context(), req)
		wantErr(t, err, amendsv1.ErrInvalidGID)
	}
	for _, d := range []*durationpb.Duration{durationpb.New(-1), {Seconds: 1, Nanos: -1}} {
		_, err := h.tx.FindEnded(t.Context(), &amendsv1.FindEndedRequest{EndedFor: d})
		wantErr(t, err, amendsv1.ErrInvalidArgument, "ended_for")
	}
	for give, want := range map[error]error{store.ErrClosed: amendsv1.ErrUnavailable, errors.New("disk"): amendsv1.ErrInternal} {
		srv, err := api.New(h.fakeEngine, failing{h.st, give}, nil, nil)
		noErr(t, err)
		client := amendsv1.NewTransactionServiceClient(dial(t, srv))
		resp, err := client.FindEnded(t.Context(), &amendsv1.FindEndedRequest{Gids: []string{"a", "b"}})
		if wantErr(t, err, want); resp != nil || status.Code(err) == codes.OK {
			t.Errorf("%v: it answers %v", give, resp)
		}
	}
}
