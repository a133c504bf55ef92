package wire_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/amends-dev/amends/coordinator/internal/wire"
	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/proto/amends/v1"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

func TestCheckBack(t *testing.T) {
	req := &amendsv1.BeginTccRequest{Name: "message", Check: &amendsv1.CheckBack{
		Action: "orders.placed", Retry: &amendsv1.RetryPolicy{Initial: durationpb.New(time.Second)}}}
	d := must(wire.TCCDefinition(req))
	if want := (tcc.CheckBack{Action: "orders.placed", Retry: txn.Retry{Initial: time.Second}}); d.Check != want {
		t.Errorf("%+v", d.Check)
	}
	req.Check.Retry.Initial = &durationpb.Duration{Nanos: -1, Seconds: 1}
	_, err := wire.TCCDefinition(req)
	wants(t, err, "retry.initial")

	s := must(tcc.New(d).Advance(d, tcc.Expire{}))
	s = must(s.Advance(d, txn.Replied{Branch: txn.All, Op: txn.Check, Attempt: 1, Outcome: txn.Unknown, Message: "away"}))
	got := must(wire.Transaction(store.Record{ // stalled: where a branch would have its next time
		GID: "g", Kind: "tcc", State: uint8(s.Phase), Stalled: true, UpdatedAt: at, NextAt: at.Add(time.Minute),
		Definition: must(d.Encode()), Body: must(s.Encode()),
	}, true, true))
	if want := (&amendsv1.Check{Action: "orders.placed", Attempt: 2, Error: "away"}); !proto.Equal(got.Check, want) {
		t.Errorf("%v", got)
	}
}
