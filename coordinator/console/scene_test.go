package console_test

import (
	"fmt"
	"time"

	"github.com/amends-dev/amends/coordinator/gateway/gatewaytest"
	amendsv1 "github.com/amends-dev/amends/proto/amends/v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	stalledGID = "checkout/2026-11-23:8f21c"
	parkedGID  = "refund-0042"
	hostile    = `<img src=x onerror=document.title='pwned'>`
)

// detail shortens what events say.
type detail = map[string]any

// scene is an ordinary bad night: payments is away.
func scene() *gatewaytest.Coordinator {
	fake := gatewaytest.New()
	now := time.Now()
	fake.Overview = &amendsv1.GetOverviewResponse{
		StallAfter: durationpb.New(5 * time.Minute), StartedRate: 41.7, CommittedRate: 38.25, RolledBackRate: 0.4,
	}
	fake.Cluster = &amendsv1.GetClusterResponse{Shards: 256, Members: []*amendsv1.Member{
		{Name: "coordinator-0", Self: true, Shards: 128, LeaseExpireTime: timestamppb.New(now.Add(9 * time.Second))},
		{Name: "coordinator-1", Shards: 128, LeaseExpireTime: timestamppb.New(now.Add(8 * time.Second))},
	}}
	fake.Participants = []*amendsv1.Participant{
		{Service: "inventory", Instances: 3, Actions: []string{"inventory.reserve"}, InFlight: 12},
		{Service: "payments", Actions: []string{"payments.charge", "payments.refund"}, Waiting: 17},
		{Service: "shipping", Instances: 2, Actions: []string{"shipping.book"}, InFlight: 2},
	}
	ordinary(fake, now)
	stalled(fake, now)
	parked(fake, now)
	return fake
}

func ordinary(fake *gatewaytest.Coordinator, now time.Time) {
	for i := range 6 {
		gid := fmt.Sprintf("0198c1a0-77aa-7c3e-9d01-0000000000%02d", i)
		at := now.Add(-time.Duration(40-i) * time.Minute)
		fake.Put(&amendsv1.Transaction{
			Gid: gid, Kind: amendsv1.Kind_KIND_SAGA, Name: "checkout", State: amendsv1.State_STATE_COMMITTED,
			Labels: map[string]string{"order_id": fmt.Sprintf("A-%d", i)}, CreateTime: timestamppb.New(at), FinishTime: timestamppb.New(at),
		})
		fake.Change(gid, nil, gatewaytest.Event(at, "started", detail{"state": "RUNNING"}))
	}
	trip(fake, now)
	fake.Put(&amendsv1.Transaction{
		Gid: hostile, Kind: amendsv1.Kind_KIND_SAGA, Name: hostile, State: amendsv1.State_STATE_RUNNING, Paused: true,
		CreateTime: timestamppb.New(now.Add(-90 * time.Second)), Labels: map[string]string{"note": hostile},
		Verbs: []amendsv1.Verb{amendsv1.Verb_VERB_RESUME},
		Branches: []*amendsv1.Branch{
			{Name: hostile, Action: "x." + hostile, Phase: "DOING", Error: hostile, Request: []byte(hostile)}, {Name: "b", Phase: "PENDING", After: []string{hostile}},
		},
	})
	fake.Change(hostile, nil, gatewaytest.Event(now.Add(-90*time.Second), "started", detail{"state": "RUNNING", "actor": hostile, "name": hostile}),
		gatewaytest.Event(now.Add(-80*time.Second), "pause", detail{"state": "RUNNING", "actor": hostile, "message": hostile}))
}

// trip is a TCC transaction that is about to confirm.
func trip(fake *gatewaytest.Coordinator, now time.Time) {
	at := func(ms int) time.Time { return now.Add(-3*time.Second + time.Duration(ms)*time.Millisecond) }
	fake.Put(&amendsv1.Transaction{
		Gid: "trip-771", Kind: amendsv1.Kind_KIND_TCC, Name: "trip", State: amendsv1.State_STATE_COMMITTING, CreateTime: timestamppb.New(at(0)),
		Deadline: timestamppb.New(now.Add(57 * time.Second)), Verbs: []amendsv1.Verb{amendsv1.Verb_VERB_PAUSE},
		Branches: []*amendsv1.Branch{
			{Name: "seat", Action: "flights.seat", Phase: "CONFIRMED", Attempt: 1}, {Name: "room", Action: "hotels.room", Phase: "CONFIRMING", Attempt: 1},
		},
	})
	ok := func(branch, op, state string) detail {
		return detail{"state": state, "branch": branch, "op": op, "attempt": 1, "outcome": "ok"}
	}
	fake.Change("trip-771", nil, gatewaytest.Event(at(0), "started", detail{"state": "RUNNING", "name": "trip"}),
		gatewaytest.Event(at(40), "try", detail{"state": "RUNNING", "branch": "seat", "action": "flights.seat"}),
		gatewaytest.Event(at(300), "replied", ok("seat", "try", "RUNNING")),
		gatewaytest.Event(at(340), "try", detail{"state": "RUNNING", "branch": "room", "action": "hotels.room"}),
		gatewaytest.Event(at(900), "replied", ok("room", "try", "RUNNING")),
		gatewaytest.Event(at(950), "commit", detail{"state": "COMMITTING"}),
		gatewaytest.Event(at(1400), "replied", ok("seat", "confirm", "COMMITTING")))
}

func stalled(fake *gatewaytest.Coordinator, now time.Time) {
	begin := now.Add(-12 * time.Minute)
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	const why = "dial tcp 10.2.0.14:8443: connect: connection refused"
	fake.Put(&amendsv1.Transaction{
		Gid: stalledGID, Kind: amendsv1.Kind_KIND_SAGA, Name: "checkout", State: amendsv1.State_STATE_ROLLING_BACK, Stalled: true, WaitsFor: "payments",
		Cause:      &amendsv1.Cause{Branch: "ship", Code: "REFUSED", Message: "no carrier delivers to this address"},
		Labels:     map[string]string{"order_id": "A-17", "customer": "4711"},
		CreateTime: timestamppb.New(begin), NextTime: timestamppb.New(now.Add(47 * time.Second)),
		Verbs: []amendsv1.Verb{amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_PAUSE, amendsv1.Verb_VERB_ABANDON},
		Branches: []*amendsv1.Branch{
			{Name: "reserve", Action: "inventory.reserve", Phase: "DONE", Attempt: 1,
				Request: []byte(`{"sku":"B-77","count":9007199254740993}`), Reply: []byte(`{"reservation":"r-1"}`)},
			{Name: "charge", Action: "payments.charge", Phase: "UNDOING", Attempt: 9, Error: why, After: []string{"reserve"},
				NextTime: timestamppb.New(now.Add(47 * time.Second)),
				Verbs:    []amendsv1.Verb{amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_SKIP_STEP, amendsv1.Verb_VERB_COMPLETE_STEP}},
			{Name: "points", Action: "loyalty.earn", Phase: "UNDONE", Attempt: 1, After: []string{"reserve"}},
			{Name: "ship", Action: "shipping.book", Phase: "UNDONE", Attempt: 1, Kind: amendsv1.StepKind_STEP_KIND_PIVOT, After: []string{"charge", "points"}},
			{Name: "mail", Action: "mail.send", Phase: "PENDING", Kind: amendsv1.StepKind_STEP_KIND_RETRIABLE, After: []string{"ship"}},
		},
	})
	reply := func(s float64, state, branch, op string, attempt int, outcome, message string) *amendsv1.Event {
		return gatewaytest.Event(at(s), "replied", detail{
			"state": state, "branch": branch, "op": op, "attempt": attempt, "outcome": outcome, "message": message})
	}
	events := []*amendsv1.Event{
		gatewaytest.Event(at(0), "started", detail{"state": "RUNNING", "name": "checkout", "actor": "shop"}),
		reply(0.2, "RUNNING", "reserve", "do", 1, "ok", ""),
		reply(0.9, "RUNNING", "points", "do", 1, "ok", ""),
		reply(11, "RUNNING", "charge", "do", 1, "unknown", "no answer within 10 s"),
		reply(12, "RUNNING", "charge", "do", 2, "ok", ""),
		reply(14, "ROLLING_BACK", "ship", "do", 1, "refused", "no carrier delivers to this address"),
		reply(15, "ROLLING_BACK", "ship", "undo", 1, "ok", ""),
		reply(15.3, "ROLLING_BACK", "points", "undo", 1, "ok", ""),
	}
	for i, s := range []float64{16, 19, 27, 45, 90, 180, 360} {
		events = append(events, reply(s, "ROLLING_BACK", "charge", "undo", i+1, "unknown", why))
	}
	events = append(events, gatewaytest.Event(at(500), "retry", detail{"state": "ROLLING_BACK", "actor": "maria@example.com", "message": "payments said they were back"}),
		reply(501, "ROLLING_BACK", "charge", "undo", 8, "unknown", why))
	fake.Change(stalledGID, nil, events...)
}

func parked(fake *gatewaytest.Coordinator, now time.Time) {
	begin := now.Add(-26 * time.Hour)
	fake.Put(&amendsv1.Transaction{
		Gid: parkedGID, Kind: amendsv1.Kind_KIND_SAGA, Name: "refund", State: amendsv1.State_STATE_PARKED, WaitsFor: "payments",
		Cause:  &amendsv1.Cause{Branch: "pay-back", Code: "REFUSED", Message: "the account is closed"},
		Labels: map[string]string{"order_id": "A-3"}, CreateTime: timestamppb.New(begin),
		Verbs: []amendsv1.Verb{amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_ABANDON},
		Branches: []*amendsv1.Branch{
			{Name: "pay-back", Action: "payments.refund", Phase: "STUCK", Attempt: 1, Error: "the account is closed",
				Verbs: []amendsv1.Verb{amendsv1.Verb_VERB_RETRY_NOW, amendsv1.Verb_VERB_SKIP_STEP, amendsv1.Verb_VERB_COMPLETE_STEP}},
		},
	})
	fake.Change(parkedGID, nil, gatewaytest.Event(begin, "started", detail{"state": "RUNNING", "name": "refund"}),
		gatewaytest.Event(begin.Add(time.Second), "replied", detail{
			"state": "PARKED", "branch": "pay-back", "op": "undo", "attempt": 1, "outcome": "refused", "message": "the account is closed"}))
}

// recover is what a retry does once payments is back: the last undos are done.
func recoverPayments(fake *gatewaytest.Coordinator) {
	ok := func(branch, state string, attempt int) *amendsv1.Event {
		return gatewaytest.Event(time.Now(), "replied", detail{"state": state, "branch": branch, "op": "undo", "attempt": attempt, "outcome": "ok"})
	}
	fake.Change(stalledGID, func(tx *amendsv1.Transaction) {
		tx.Stalled, tx.NextTime, tx.WaitsFor = false, nil, ""
		tx.Branches[1].Phase, tx.Branches[1].NextTime, tx.Branches[1].Error, tx.Branches[1].Verbs = "UNDONE", nil, "", nil
		tx.Branches[0].Phase = "UNDOING"
	}, ok("charge", "ROLLING_BACK", 9))
	fake.Change(stalledGID, func(tx *amendsv1.Transaction) {
		tx.State, tx.FinishTime, tx.Verbs = amendsv1.State_STATE_ROLLED_BACK, timestamppb.Now(), nil
		tx.Branches[0].Phase = "UNDONE"
	}, ok("reserve", "ROLLED_BACK", 1))
}
