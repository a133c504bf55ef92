package engine

import (
	"fmt"
	"slices"

	"github.com/amends-dev/amends/coordinator/internal/wire"
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

	branches() int
	find(branch string) int // its index, or -1
	stuck() (action string) // of the first branch that is stuck
	permits(branch int, v txn.Verb) error
	legal(branch int) []txn.Verb
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
	if next.Phase == m.s.Phase && next.Cause == m.s.Cause && next.Checking == m.s.Checking && sameArray(next.Branches, m.s.Branches) {
		return m, nil
	}
	return &tccMachine{d: m.d, s: next}, nil
}

func (m *sagaMachine) permits(i int, v txn.Verb) error { return m.s.Permits(m.d, i, v) }
func (m *sagaMachine) legal(i int) []txn.Verb          { return m.s.Legal(m.d, i) }
func (m *sagaMachine) branches() int                   { return len(m.d.Steps) }

func (m *sagaMachine) find(name string) int {
	return slices.IndexFunc(m.d.Steps, func(s saga.Step) bool { return s.Name == name })
}

func (m *sagaMachine) stuck() string {
	i := slices.IndexFunc(m.s.Steps, func(s saga.StepState) bool { return s.Phase == saga.Stuck })
	if i < 0 {
		return ""
	}
	return m.d.Steps[i].Action
}

func (m *tccMachine) permits(i int, v txn.Verb) error { return m.s.Permits(m.d, i, v) }
func (m *tccMachine) legal(i int) []txn.Verb          { return m.s.Legal(m.d, i) }
func (m *tccMachine) branches() int                   { return len(m.s.Branches) }
func (m *tccMachine) find(name string) int            { return m.s.Find(name) }

func (m *tccMachine) stuck() string {
	i := slices.IndexFunc(m.s.Branches, func(b tcc.BranchState) bool { return b.Phase == tcc.Stuck })
	if i < 0 {
		return ""
	}
	return m.s.Branches[i].Action
}

// sameArray reports whether a and b are one slice. Machines copy on write, so
// this tells a state that changed from one that did not.
func sameArray[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// decode makes the machine of a stored transaction, and returns what the engine
// keeps beside it.
func decode(rec *store.Record) (m machine, own []byte, err error) {
	state, own, err := wire.SplitBody(rec.Body)
	if err != nil {
		return nil, nil, err
	}
	switch rec.Kind {
	case KindSaga:
		m, err = decodeSaga(rec.Definition, state)
	case KindTCC:
		m, err = decodeTCC(rec.Definition, state)
	case KindBulk:
		m, err = decodeBulk(state)
	default:
		err = fmt.Errorf("engine: transaction %q is of unknown kind %q", rec.GID, rec.Kind)
	}
	return m, own, err
}

func decodeSaga(definition, state []byte) (machine, error) {
	d, err := saga.DecodeDefinition(definition)
	if err != nil {
		return nil, err
	}
	s, err := saga.DecodeState(d, state)
	return &sagaMachine{d: d, s: s}, err
}

func decodeTCC(definition, state []byte) (machine, error) {
	d, err := tcc.DecodeDefinition(definition)
	if err != nil {
		return nil, err
	}
	s, err := tcc.DecodeState(d, state)
	return &tccMachine{d: d, s: s}, err
}
