package engine

import (
	"fmt"

	"github.com/amends-dev/amends/coordinator/store"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// The kinds of transactions, as the store keeps them.
const (
	KindSaga = "saga"
	KindTCC  = "tcc"
)

// machine is what the engine sees of a saga or a TCC transaction. It is
// immutable: advance returns another one, or itself when nothing changed.
type machine interface {
	phase() txn.State
	cause() *txn.Reason
	advance(ev txn.Event) (machine, error)
	outstanding() []txn.Call
	encode() ([]byte, error)
	branch(index int) string
	services() []string // of all that is known to be called, done or not
	turnedBack() bool   // decided to undo, done or not
}

type sagaMachine struct {
	d *saga.Definition
	s saga.State
}

func (m *sagaMachine) phase() txn.State        { return m.s.Phase }
func (m *sagaMachine) cause() *txn.Reason      { return m.s.Cause }
func (m *sagaMachine) outstanding() []txn.Call { return m.s.Outstanding(m.d) }
func (m *sagaMachine) encode() ([]byte, error) { return m.s.Encode() }

func (m *sagaMachine) turnedBack() bool { return m.s.TurnedBack(m.d) }

func (m *sagaMachine) services() (all []string) {
	for i := range m.d.Steps {
		all = appendService(all, m.d.Steps[i].Action)
	}
	return all
}

func (m *sagaMachine) branch(i int) string {
	if i < 0 || i >= len(m.d.Steps) {
		return ""
	}
	return m.d.Steps[i].Name
}

func (m *sagaMachine) advance(ev txn.Event) (machine, error) {
	next, err := m.s.Advance(m.d, ev)
	if err != nil {
		return m, err
	}
	if next.Phase == m.s.Phase && next.Cause == m.s.Cause && sameArray(next.Steps, m.s.Steps) {
		return m, nil
	}
	return &sagaMachine{d: m.d, s: next}, nil
}

type tccMachine struct {
	d *tcc.Definition
	s tcc.State
}

func (m *tccMachine) phase() txn.State        { return m.s.Phase }
func (m *tccMachine) cause() *txn.Reason      { return m.s.Cause }
func (m *tccMachine) outstanding() []txn.Call { return m.s.Outstanding(m.d) }
func (m *tccMachine) encode() ([]byte, error) { return m.s.Encode() }

func (m *tccMachine) turnedBack() bool { return m.s.Decision == txn.RollingBack }

func (m *tccMachine) services() (all []string) {
	for i := range m.s.Branches {
		all = appendService(all, m.s.Branches[i].Action)
	}
	return all
}

func (m *tccMachine) branch(i int) string {
	if i < 0 || i >= len(m.s.Branches) {
		return ""
	}
	return m.s.Branches[i].Name
}

func (m *tccMachine) advance(ev txn.Event) (machine, error) {
	next, err := m.s.Advance(m.d, ev)
	if err != nil {
		return m, err
	}
	if next.Phase == m.s.Phase && next.Cause == m.s.Cause && sameArray(next.Branches, m.s.Branches) {
		return m, nil
	}
	return &tccMachine{d: m.d, s: next}, nil
}

// sameArray reports whether a and b are one slice. Machines copy on write, so
// this tells a state that changed from one that did not.
func sameArray[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// decode makes the machine of a stored transaction.
func decode(rec *store.Record) (machine, error) {
	switch rec.Kind {
	case KindSaga:
		d, err := saga.DecodeDefinition(rec.Definition)
		if err != nil {
			return nil, err
		}
		s, err := saga.DecodeState(d, rec.Body)
		return &sagaMachine{d: d, s: s}, err
	case KindTCC:
		d, err := tcc.DecodeDefinition(rec.Definition)
		if err != nil {
			return nil, err
		}
		s, err := tcc.DecodeState(d, rec.Body)
		return &tccMachine{d: d, s: s}, err
	}
	return nil, fmt.Errorf("engine: transaction %q is of unknown kind %q", rec.GID, rec.Kind)
}
