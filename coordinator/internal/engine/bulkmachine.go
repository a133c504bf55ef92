package engine

import (
	"encoding/json"
	"fmt"

	"github.com/amends-dev/amends/saga/txn"
)

// bulkMachine makes a bulk a transaction to the engine: RUNNING, then COMMITTED
// when it came to its end or ROLLED_BACK when it was cancelled. It calls no
// participant.
type bulkMachine struct {
	state    txn.State
	progress BulkProgress
}

// bulkStep tells how far a bulk has come.
type bulkStep struct {
	progress BulkProgress
	ended    bool
}

// EventType returns "progress".
func (bulkStep) EventType() string { return "progress" }

// bulkCancel stops a bulk.
type bulkCancel struct{}

// EventType returns "cancel".
func (bulkCancel) EventType() string { return "cancel" }

func (m *bulkMachine) advance(ev txn.Event) (machine, error) {
	if m.state.Finished() {
		return m, nil
	}
	next := *m
	switch ev := ev.(type) {
	case bulkStep:
		if ev.progress.seen() < m.progress.seen() {
			return m, nil // another coordinator has carried it on since
		}
		next.progress = ev.progress
		if ev.ended {
			next.state = txn.Committed
		}
	case bulkCancel:
		next.state = txn.RolledBack
	default:
		return m, fmt.Errorf("engine: a bulk takes no event %q", ev.EventType())
	}
	return &next, nil
}

func (m *bulkMachine) phase() txn.State        { return m.state }
func (m *bulkMachine) cause() *txn.Reason      { return nil }
func (m *bulkMachine) outstanding() []txn.Call { return nil }
func (m *bulkMachine) turnedBack() bool        { return false }
func (m *bulkMachine) services() []string      { return nil }
func (m *bulkMachine) branches() int           { return 0 }
func (m *bulkMachine) branch(int) string       { return "" }
func (m *bulkMachine) find(string) int         { return -1 }
func (m *bulkMachine) stuck() string           { return "" }
func (m *bulkMachine) legal(int) []txn.Verb    { return nil }
func (m *bulkMachine) permits(int, txn.Verb) error {
	return txn.Illegal("it is a bulk: cancel it", nil)
}

type encodedBulk struct {
	State    string       `json:"state"`
	Progress BulkProgress `json:"progress"`
}

func (m *bulkMachine) encode() ([]byte, error) {
	return json.Marshal(encodedBulk{State: m.state.String(), Progress: m.progress})
}

func decodeBulk(body []byte) (*bulkMachine, error) {
	var e encodedBulk
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("engine: bulk: %w", err)
	}
	state, err := txn.ParseState(e.State)
	if err != nil {
		return nil, fmt.Errorf("engine: bulk: %w", err)
	}
	return &bulkMachine{state: state, progress: e.Progress}, nil
}
