package model

import (
	"bytes"
	"fmt"
	"reflect"

	"github.com/amends-dev/amends/coordinator/internal/ahead"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// run is a state of one of the real machines, with its definition.
type run interface {
	phase() txn.State
	decided() txn.State // Committing or RollingBack once that is certain; 0 before, and of a saga
	calls() []txn.Call
	advance(ev txn.Event) (run, error)
	encode() ([]byte, error)
	decode(data []byte) (run, error)
	settled(branch int) bool // its first phase is known to have taken effect

	load() (run, error)             // what it is to whoever reads it from the store
	early(base run) bool            // what it calls may be called while base is stored
	soft(next run, of message) bool // an OK that leads to next may be lost
}

type sagaRun struct {
	def *saga.Definition
	s   saga.State
}

func (r sagaRun) phase() txn.State        { return r.s.Phase }
func (r sagaRun) decided() txn.State      { return 0 }
func (r sagaRun) calls() []txn.Call       { return r.s.Outstanding(r.def) }
func (r sagaRun) settled(branch int) bool { return r.s.Steps[branch].Phase == saga.Done }

func (r sagaRun) encode() ([]byte, error) {
	data, err := r.s.Encode()
	for _, i := range r.s.Presumed() {
		data = append(data, presumedMark, byte('0'+i))
	}
	return data, err
}

// presumedMark comes before each step that a state presumes to be called, which
// are stored behind it.
const presumedMark = '\n'

func (r sagaRun) load() (run, error) {
	if !ahead.Leads(r.def, r.s) {
		return r, nil
	}
	s, err := r.s.Presume(r.def, ahead.Presumed(r.def, r.s))
	return sagaRun{r.def, s}, err
}

func (r sagaRun) early(base run) bool {
	b := base.(sagaRun)
	return ahead.Leads(r.def, b.s) && ahead.Early(r.def, b.s, r.s)
}

func (r sagaRun) soft(next run, of message) bool {
	return of.op == txn.Do && r.phase() == next.phase() && r.def.Steps[of.branch].Kind != saga.Pivot
}

func (r sagaRun) advance(ev txn.Event) (run, error) {
	s, err := r.s.Advance(r.def, ev)
	return sagaRun{r.def, s}, err
}

func (r sagaRun) decode(data []byte) (run, error) {
	state, marks, _ := bytes.Cut(data, []byte{presumedMark})
	s, err := saga.DecodeState(r.def, state)
	if err != nil || len(marks) == 0 {
		return sagaRun{r.def, s}, err
	}
	var steps []int
	for _, mark := range bytes.Split(marks, []byte{presumedMark}) {
		steps = append(steps, int(mark[0]-'0'))
	}
	s, err = s.Presume(r.def, steps)
	return sagaRun{r.def, s}, err
}

type tccRun struct {
	def *tcc.Definition
	s   tcc.State
}

func (r tccRun) phase() txn.State        { return r.s.Phase }
func (r tccRun) decided() txn.State      { return r.s.Decision }
func (r tccRun) calls() []txn.Call       { return r.s.Outstanding(r.def) }
func (r tccRun) encode() ([]byte, error) { return r.s.Encode() }
func (r tccRun) with(s tcc.State) tccRun { return tccRun{r.def, s} }
func (r tccRun) load() (run, error)      { return r, nil }
func (r tccRun) early(run) bool          { return true }

func (r tccRun) soft(next run, _ message) bool { return r.phase() == next.phase() }

func (r tccRun) settled(branch int) bool {
	return branch < len(r.s.Branches) && r.s.Branches[branch].Phase == tcc.Tried
}

func (r tccRun) advance(ev txn.Event) (run, error) {
	s, err := r.s.Advance(r.def, ev)
	return r.with(s), err
}

func (r tccRun) decode(data []byte) (run, error) {
	s, err := tcc.DecodeState(r.def, data)
	return r.with(s), err
}

// id is a machine's state by its number. 0 is none.
type id uint16

// change is a machine's state and what happens to it, as a key.
type change struct {
	from id
	what message
	kind eventKind
}

type eventKind uint8

const (
	evOK eventKind = iota
	evRefused
	evUnknown
	evAbort
	evTry
	evCommit
	evExpire
	evSkip
)

// machines numbers the states of a machine, by what it stores of them: what a
// coordinator has in memory is always what another would load.
type machines struct {
	ids    map[string]id
	runs   []run
	asks   [][]message // what each waits for
	known  map[change]id
	branch func(i int) tcc.Branch
	fault  Fault
}

func newMachines(first run, fault Fault) (*machines, id, error) {
	m := &machines{ids: map[string]id{}, runs: []run{nil}, asks: [][]message{nil}, known: map[change]id{}, fault: fault}
	n, err := m.number(first)
	return m, n, err
}

// number stores r, loads it again and returns its number.
func (m *machines) number(r run) (id, error) {
	data, err := r.encode()
	if err != nil {
		return 0, err
	}
	if n, ok := m.ids[string(data)]; ok {
		return n, nil
	}
	loaded, err := r.decode(data)
	if err != nil {
		return 0, err
	}
	if was, is := r.calls(), loaded.calls(); !reflect.DeepEqual(was, is) {
		return 0, fmt.Errorf("waits for %+v, and once it was loaded again for %+v", was, is)
	}
	if again, err := loaded.encode(); err != nil || !bytes.Equal(data, again) {
		return 0, fmt.Errorf("is stored as %s, and once it was loaded again as %s (%w)", data, again, err)
	}
	n := id(len(m.runs))
	m.ids[string(data)] = n
	m.runs = append(m.runs, loaded)
	var asks []message
	for _, c := range loaded.calls() {
		asks = append(asks, message{branch: int8(c.Branch), op: c.Op, attempt: int8(c.Attempt)})
	}
	m.asks = append(m.asks, asks)
	return n, nil
}

// advance returns the state after an event, from itself when it changes nothing.
// An event that comes at the wrong time is refused by the machine, and changes nothing.
func (m *machines) advance(from id, kind eventKind, what message) (id, error) {
	c := change{from: from, what: what, kind: kind}
	if n, ok := m.known[c]; ok {
		return n, nil
	}
	was := m.runs[from]
	next, err := was.advance(m.event(kind, what))
	if err != nil {
		m.known[c] = from
		return from, nil //nolint:nilerr // the machine's refusal is its answer
	}
	if m.fault == UndoOnlyDone {
		if next, err = forgive(was, next); err != nil {
			return 0, err
		}
	}
	n, err := m.number(next)
	if err != nil {
		return 0, err
	}
	m.known[c] = n
	return n, nil
}

// load returns the state that a coordinator has who reads one from the store.
func (m *machines) load(row id) (id, error) {
	if m.fault == PresumeNothing {
		return row, nil
	}
	loaded, err := m.runs[row].load()
	if err != nil {
		return 0, err
	}
	return m.number(loaded)
}

// early reports whether what a state calls may be called while base is stored.
func (m *machines) early(base, mem id) bool {
	if m.fault == PivotAhead {
		return base != 0
	}
	return base != 0 && m.runs[mem].early(m.runs[base])
}

// soft reports whether the step from one state to the next, by an OK, may be lost.
func (m *machines) soft(from, to id, of message) bool {
	return m.runs[from].soft(m.runs[to], of)
}

// forgive is the mistake of undoing only what is known to have succeeded.
func forgive(was, next run) (run, error) {
	for _, c := range next.calls() {
		if (c.Op == txn.Undo || c.Op == txn.Cancel) && c.Attempt == 1 && !was.settled(c.Branch) && !was.phase().Finished() {
			var err error
			next, err = next.advance(txn.Replied{Branch: c.Branch, Op: c.Op, Attempt: c.Attempt, Outcome: txn.OK})
			if err != nil {
				return nil, err
			}
		}
	}
	return next, nil
}

func (m *machines) event(kind eventKind, what message) txn.Event {
	replied := txn.Replied{Branch: int(what.branch), Op: what.op, Attempt: int(what.attempt)}
	switch kind {
	case evOK:
		replied.Outcome = txn.OK
		return replied
	case evRefused:
		replied.Outcome, replied.Message = txn.Refused, "no"
		return replied
	case evUnknown:
		replied.Outcome, replied.Message = txn.Unknown, "no answer"
		return replied
	case evTry:
		return tcc.Try{Branch: m.branch(int(what.branch))}
	case evCommit:
		return tcc.Commit{}
	case evSkip:
		return txn.Skip{Branch: int(what.branch)}
	case evExpire:
		return tcc.Expire{Reason: txn.Reason{Code: txn.CodeDeadline}}
	}
	return txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted}}
}
