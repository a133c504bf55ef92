package model

import (
	"fmt"
	"math/bits"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/tcc"
)

// Scope bounds what is explored of a Transaction. Budgets count over the whole run.
type Scope struct {
	Fault    Fault
	Crashes  int  // a coordinator loses its memory; what it has sent goes on
	Expiries int  // a lease runs out under a coordinator that does not notice
	Handover int  // a coordinator gives the shard to the other, and may not hear that it did
	Lost     int  // answers of the store that do not arrive, and repeats of a write that come late
	Timeouts int  // calls that are not answered in time, at most 3
	Aborts   int  // requests to turn back; for TCC it is the deadline
	Skips    int  // steps of a saga that goes forward which an operator skips
	Recorded bool // calls go out ahead of what is stored where replies are recorded
	Refusals bool // participants may refuse; what was refused once may be done when it comes again
}

// Transaction is the model of one transaction between two coordinators. Messages
// to participants and back are never used up: each may arrive at any later time,
// any number of times, or never, also at a coordinator that did not ask. So do
// replies. A read of the store is one step; a commit is three: asked, written,
// answered. Of time there is only that leases end.
//
// Not in it: other transactions (group commit), pauses and operators but for
// skips, more than 3 branches, replies' contents, the check-back of TCC.
type Transaction struct {
	scope  Scope
	m      *machines
	first  id
	n      int // branches
	before [][]int
	kinds  []saga.Kind
	tcc    bool
}

// Saga returns the model of a saga of at most 3 steps.
func Saga(def *saga.Definition, scope Scope) (*Transaction, error) {
	if err := def.Validate(); err != nil {
		return nil, err
	}
	if len(def.Steps) > maxBranches {
		return nil, fmt.Errorf("model: %d steps, at most %d are allowed", len(def.Steps), maxBranches)
	}
	t := &Transaction{scope: scope, n: len(def.Steps)}
	for _, st := range def.Steps {
		t.kinds = append(t.kinds, st.Kind)
		t.before = append(t.before, st.After)
	}
	var err error
	t.m, t.first, err = newMachines(sagaRun{def: def, s: saga.New(def)}, scope.Fault)
	return t, err
}

// TCC returns the model of a TCC transaction of at most 3 branches, whose client
// commits when every try was answered, unless the deadline is earlier.
func TCC(def *tcc.Definition, branches []tcc.Branch, scope Scope) (*Transaction, error) {
	if err := def.Validate(); err != nil {
		return nil, err
	}
	if len(branches) > maxBranches {
		return nil, fmt.Errorf("model: %d branches, at most %d are allowed", len(branches), maxBranches)
	}
	t := &Transaction{scope: scope, n: len(branches), tcc: true}
	var err error
	t.m, t.first, err = newMachines(tccRun{def, tcc.New(def)}, scope.Fault)
	if err == nil {
		t.m.branch = func(i int) tcc.Branch { return branches[i] }
	}
	return t, err
}

const (
	maxBranches = 3
	maxAttempts = 4
	ops         = 5
)

// message is a call, or what it answers.
type message struct {
	branch  int8
	op      txn.Op
	attempt int8
}

// messages is a set of them.
type messages uint64

func (m message) bit() messages {
	return 1 << ((int(m.branch)*ops+int(m.op)-1)*maxAttempts + int(m.attempt) - 1)
}

func (s messages) has(m message) bool { return s&m.bit() != 0 }

// each calls f with all of the set.
func (s messages) each(f func(message)) {
	for rest := uint64(s); rest != 0; rest &= rest - 1 {
		n := bits.TrailingZeros64(rest)
		f(message{branch: int8(n / maxAttempts / ops), op: txn.Op(n/maxAttempts%ops + 1), attempt: int8(n%maxAttempts + 1)})
	}
}

// World is a state of a Transaction.
type World struct {
	row     id // what the store has of the transaction; 0: nothing
	version int8
	lease   leaseRow
	coords  [2]coord
	late    request // a write that is still under way, and nobody waits for
	calls   messages
	oks     messages // answers that were given
	noes    messages
	parts   [maxBranches]part
	started bool  // the client has heard so
	tried   uint8 // branches of which the client has heard that they are tried
	commit  bool  // the client has heard so
	left    budget
}

type leaseRow struct {
	owner   int8 // 1 or 2; 0: nobody
	epoch   int8
	expired bool
}

// coord is what a coordinator knows.
type coord struct {
	epoch   int8 // of the lease that it believes to hold; 0: none
	mem     id   // the transaction; 0: not in memory
	version int8 // the last that it knows to be stored
	dirty   bool // mem is ahead of what was asked to be stored
	soft    bool // and what it is ahead by comes again if it is lost
	base    id   // the state of version
	asked   request
}

// durable reports whether all that the coordinator knows is stored.
func (c *coord) durable() bool { return !c.dirty && c.asked.fate == 0 }

// request is a write on its way to the store, or its answer on the way back.
type request struct {
	state   id
	version int8
	epoch   int8
	fate    fate
}

type fate uint8

const (
	underway fate = iota + 1
	written
	conflict
)

// part is what a participant remembers of a branch, and what it did.
type part struct {
	claim claim
	end   txn.Op // the second phase that it claimed; 0: none
	ran   int8   // times that the first phase took effect
	ended int8   // times that a second phase did
	by    txn.Op // which
}

type claim uint8

const (
	done claim = iota + 1
	tomb
)

// budget is what may still go wrong.
type budget struct{ crashes, expiries, handovers, lost, timeouts, aborts, skips int8 }

// Init returns a world in which nobody owns the shard and nothing was started.
func (t *Transaction) Init() World {
	s := &t.scope
	return World{left: budget{int8(s.Crashes), int8(s.Expiries), int8(s.Handover), int8(s.Lost), int8(s.Timeouts),
		int8(s.Aborts), int8(s.Skips)}}
}
