package model

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/tcc"
)

func step(name, action string, kind saga.Kind, after ...int) saga.Step {
	return saga.Step{Name: name, Action: action, Kind: kind, After: after}
}

// The sagas that are explored: of three steps at two participants.
var (
	short = &saga.Definition{Name: "short", Steps: []saga.Step{
		step("a", "one.a", 0), step("b", "two.b", 0, 0)}}
	line = &saga.Definition{Name: "line", Steps: []saga.Step{
		step("a", "one.a", 0), step("b", "two.b", 0, 0), step("c", "one.c", 0, 1)}}
	pivot = &saga.Definition{Name: "pivot", Steps: []saga.Step{
		step("a", "one.a", 0), step("b", "two.b", saga.Pivot, 0), step("c", "one.c", saga.Retriable, 1)}}
	fork = &saga.Definition{Name: "fork", Steps: []saga.Step{
		step("a", "one.a", 0), step("b", "two.b", 0), step("c", "one.c", 0, 0, 1)}}
	trip = &tcc.Definition{Name: "trip", Timeout: time.Minute}
)

func branches(n int) []tcc.Branch {
	return []tcc.Branch{{Name: "a", Action: "one.seat"}, {Name: "b", Action: "two.room"}, {Name: "c", Action: "one.car"}}[:n]
}

// room is a system with its scope.
type room struct {
	name  string
	saga  *saga.Definition
	tcc   int // branches
	scope Scope
	flow  FlowScope
}

func (r room) explore(limit int) (Count, error) {
	switch {
	case r.saga != nil:
		m, err := Saga(r.saga, r.scope)
		if err != nil {
			return Count{}, err
		}
		return Explore(m, limit)
	case r.tcc > 0:
		m, err := TCC(trip, branches(r.tcc), r.scope)
		if err != nil {
			return Count{}, err
		}
		return Explore(m, limit)
	}
	m, err := NewRelay(r.flow)
	if err != nil {
		return Count{}, err
	}
	return Explore(m, limit)
}

// small are the rooms of every test run, large those of AMENDS_MODEL=full (make sim).
var (
	small = []room{
		{name: "line, crash", saga: line, scope: Scope{Crashes: 1, Aborts: 1, Refusals: true}},
		{name: "line, expiry", saga: line, scope: Scope{Expiries: 1, Aborts: 1}},
		{name: "line, handover", saga: line, scope: Scope{Handover: 2, Aborts: 1}},
		{name: "pivot, expiry", saga: pivot, scope: Scope{Expiries: 1, Aborts: 1}},
		{name: "fork, crash", saga: fork, scope: Scope{Crashes: 1, Aborts: 1}},
		{name: "tcc, crash", tcc: 2, scope: Scope{Crashes: 1}},
		{name: "line, ahead", saga: line, scope: Scope{Crashes: 1, Aborts: 1, Recorded: true}},
		{name: "line, ahead, skip", saga: line, scope: Scope{Crashes: 1, Skips: 1, Recorded: true}},
		{name: "tcc, ahead", tcc: 2, scope: Scope{Crashes: 1, Recorded: true}},
		{name: "relay, two messages, crash", flow: FlowScope{Messages: 2, Crashes: 1}},
	}
	large = []room{
		{name: "line, all", saga: line, scope: Scope{Crashes: 1, Expiries: 1, Lost: 1, Aborts: 1}},
		{name: "line, timeouts", saga: line, scope: Scope{Expiries: 1, Timeouts: 2, Aborts: 1}},
		{name: "line, refusals", saga: line, scope: Scope{Crashes: 1, Expiries: 1, Aborts: 1, Refusals: true}},
		{name: "line, three owners", saga: line, scope: Scope{Expiries: 3, Aborts: 1}},
		{name: "line, handover, all", saga: line, scope: Scope{Handover: 2, Crashes: 1, Lost: 1, Aborts: 1}},
		{name: "pivot, all", saga: pivot, scope: Scope{Expiries: 1, Lost: 1, Timeouts: 1, Aborts: 1}},
		{name: "pivot, refusals", saga: pivot, scope: Scope{Crashes: 1, Expiries: 1, Aborts: 1, Refusals: true}},
		{name: "fork, all", saga: fork, scope: Scope{Expiries: 1, Lost: 1, Aborts: 1}},
		{name: "fork, refusals", saga: fork, scope: Scope{Crashes: 1, Aborts: 1, Refusals: true}},
		{name: "tcc, expiry", tcc: 2, scope: Scope{Expiries: 1, Aborts: 1}},
		{name: "tcc, handover", tcc: 2, scope: Scope{Handover: 1, Aborts: 1}},
		{name: "tcc, crash, refusals", tcc: 2, scope: Scope{Crashes: 1, Aborts: 1, Refusals: true}},
		{name: "tcc, lost answers", tcc: 2, scope: Scope{Crashes: 1, Lost: 1, Aborts: 1}},
		{name: "line, ahead, all", saga: line, scope: Scope{Crashes: 1, Expiries: 1, Lost: 1, Aborts: 1, Recorded: true}},
		{name: "line, ahead, timeouts", saga: line, scope: Scope{Crashes: 1, Timeouts: 2, Aborts: 1, Recorded: true}},
		{name: "line, ahead, refusals", saga: line, scope: Scope{Crashes: 1, Aborts: 1, Refusals: true, Recorded: true}},
		{name: "line, ahead, skip, abort", saga: line, scope: Scope{Crashes: 1, Skips: 1, Aborts: 1, Recorded: true}},
		{name: "fork, ahead, skips", saga: fork, scope: Scope{Crashes: 1, Skips: 2, Recorded: true}},
		{name: "line, ahead, handover", saga: line, scope: Scope{Handover: 2, Aborts: 1, Recorded: true}},
		{name: "pivot, ahead", saga: pivot, scope: Scope{Crashes: 1, Timeouts: 1, Aborts: 1, Refusals: true, Recorded: true}},
		{name: "fork, ahead", saga: fork, scope: Scope{Crashes: 1, Aborts: 1, Refusals: true, Recorded: true}},
		{name: "tcc, ahead, refusals", tcc: 2, scope: Scope{Crashes: 1, Aborts: 1, Refusals: true, Recorded: true}},
		{name: "tcc, ahead, expiry", tcc: 2, scope: Scope{Expiries: 1, Aborts: 1, Recorded: true}},
		{name: "relay, three messages, crash", flow: FlowScope{Messages: 3, Crashes: 1}},
		{name: "relay, three messages, expiry", flow: FlowScope{Messages: 3, Expiries: 1}},
		{name: "relay, two messages, all", flow: FlowScope{Messages: 2, Crashes: 1, Expiries: 1, Lost: 1, Failures: 1, Rollbacks: 1}},
		{name: "relay, two messages, two crashes", flow: FlowScope{Messages: 2, Crashes: 2}},
	}
)

const limit = 6_000_000 // states; about a GiB

// TestExploration goes through everything that can happen in small scopes, and
// with AMENDS_MODEL=full in larger ones, which takes minutes.
func TestExploration(t *testing.T) {
	rooms := small
	switch v := os.Getenv("AMENDS_MODEL"); v {
	case "":
	case "full":
		rooms = append(rooms, large...)
	default:
		t.Fatalf("AMENDS_MODEL is %q, want full or nothing", v)
	}
	for _, r := range rooms {
		t.Run(r.name, func(t *testing.T) {
			begun := time.Now()
			n, err := r.explore(limit)
			t.Logf("%d states, %d transitions, depth %d, %.1f s", n.States, n.Transitions, n.Depth, time.Since(begun).Seconds())
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// planted are the faults, each where it shows soonest, with what it breaks.
var planted = []struct {
	fault Fault
	room
	want string
}{
	{NoEpochCheck, room{saga: short, scope: Scope{Expiries: 1, Aborts: 1}}, "committed, and branch 1 does not stand"},
	{NoEpochCheck, room{tcc: 2, scope: Scope{Crashes: 1, Aborts: 1}}, "rolled back, and branch 0 stands"},
	{OverwriteLater, room{saga: short, scope: Scope{Lost: 1, Expiries: 1, Aborts: 1}}, "step 0, which it comes after, does not"},
	{ActBeforeDurable, room{saga: short, scope: Scope{Crashes: 1, Aborts: 1}}, "step 0, which it comes after, does not"},
	{ActBeforeDurable, room{tcc: 2, scope: Scope{Crashes: 1, Aborts: 1}}, "rolled back, and branch 0 stands"},
	{AckBeforeDurable, room{saga: short, scope: Scope{Crashes: 1}}, "a start that was acknowledged is not stored"},
	{ReadBeforeLease, room{saga: short, scope: Scope{Crashes: 1, Aborts: 1}}, "step 0, which it comes after, does not"},
	{ReadBeforeLease, room{tcc: 2, scope: Scope{Crashes: 1, Aborts: 1}}, "rolled back, and branch 0 stands"},
	{HandoverSameEpoch, room{saga: short, scope: Scope{Handover: 1, Aborts: 1}}, "step 0, which it comes after, does not"},
	{UndoOnlyDone, room{saga: short, scope: Scope{Refusals: true}}, "rolled back, and branch 0 stands"},
	{UndoOnlyDone, room{tcc: 2, scope: Scope{Refusals: true}}, "rolled back, and branch 0 stands"},
	{NoTombstone, room{saga: short, scope: Scope{Aborts: 1}}, "rolled back, and branch 0 stands"},
	{NoTombstone, room{tcc: 2, scope: Scope{Aborts: 1}}, "rolled back, and branch 0 stands"},
	{NoClaim, room{saga: short}, "branch 0 took effect twice"},
	{NoClaim, room{tcc: 2}, "branch 0 took effect twice"},
	{MarkBeforeWork, room{saga: short}, "step 0, which it comes after, does not"},
	{MarkBeforeWork, room{tcc: 2}, "committed, and branch 0 does not stand"},
	{PresumeNothing, room{saga: short, scope: Scope{Crashes: 1, Aborts: 1, Recorded: true}}, "step 0, which it comes after, does not"},
	{PresumeNothing, room{saga: short, scope: Scope{Crashes: 1, Skips: 1, Recorded: true}}, "was skipped as never called, and took effect"},
	{PivotAhead, room{saga: pivot, scope: Scope{Crashes: 1, Aborts: 1, Recorded: true}}, "step 0, which it comes after, does not"},
	{DeleteBeforeAck, room{flow: FlowScope{Messages: 2, Failures: 1}}, "message 1 is neither in the outbox nor in the log"},
	{Watermark, room{flow: FlowScope{Messages: 3}}, "first in the log, and was committed second"},
	{MarkBeforePublish, room{flow: FlowScope{Messages: 2, Crashes: 1}}, "first in the log, and was committed second"},
	{Overtake, room{flow: FlowScope{Messages: 2, Failures: 1}}, "first in the log, and was committed second"},
	{NoRowLock, room{flow: FlowScope{Messages: 2}}, "first in the log, and was committed second"},
	{OffsetBeforeWork, room{flow: FlowScope{Messages: 2, Crashes: 1}}, "can never be finished"},
	{ConsumerMarksFirst, room{flow: FlowScope{Messages: 2, Crashes: 1}}, "can never be finished"},
	{NoInbox, room{flow: FlowScope{Messages: 2, Crashes: 1}}, "took effect twice"},
}

// TestPlantedFaults: each fault breaks a promise, and the same scope without it none.
func TestPlantedFaults(t *testing.T) {
	found := map[Fault]bool{}
	for _, p := range planted {
		t.Run(p.fault.String(), func(t *testing.T) {
			if n, err := p.explore(limit); err != nil {
				t.Fatalf("without the fault, in %d states: %v", n.States, err)
			}
			p.scope.Fault, p.flow.Fault = p.fault, p.fault
			n, err := p.explore(limit)
			var v *ViolationError
			if !errors.As(err, &v) || !strings.Contains(v.Error(), p.want) {
				t.Fatalf("in %d states: got %v, want %q", n.States, err, p.want)
			}
			found[p.fault] = true
			t.Logf("after %d states: %v", n.States, v)
		})
	}
	for f := NoEpochCheck; f <= NoInbox; f++ {
		if !found[f] {
			t.Errorf("%q is planted nowhere, or not found", f)
		}
	}
}
