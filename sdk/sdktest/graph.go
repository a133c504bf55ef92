package sdktest

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
)

// graph is every state that the saga and the model of its participants can be
// in, and how one leads to another.
type graph struct {
	def   *saga.Definition
	cfg   EnumerateConfig
	nodes []node
	seen  map[string]int // nodes by key
	edges []edge
}

// node is one state, reached first from parent by via.
type node struct {
	saga    saga.State
	effects []effect // of each step, as the participant's database has it
	late    []bool   // of each step: a do was lost and may still arrive
	aborted bool
	parent  int // -1: none
	via     choice
}

// effect is what a step left in its participant's database.
type effect byte

const (
	nothing effect = iota
	stands
	gone // undone, or forbidden before it came
)

type edge struct {
	from, to int
	via      choice
}

// explore visits every state, the nearest first, so that the path to a mistake
// is a shortest one.
func (g *graph) explore() error {
	n := len(g.def.Steps)
	g.add(node{saga: saga.New(g.def), effects: make([]effect, n), late: make([]bool, n), parent: -1})
	for i := 0; i < len(g.nodes); i++ {
		if err := g.expand(i); err != nil {
			return fmt.Errorf("%w\nafter\n%s", err, pathText(g.def, g.path(i)))
		}
		if len(g.nodes) > g.cfg.MaxStates {
			return fmt.Errorf("there are more than %d states: raise MaxStates, or enumerate with an input of fewer steps",
				g.cfg.MaxStates)
		}
	}
	return g.allEnd()
}

func (g *graph) add(n node) int {
	key := n.key()
	if i, ok := g.seen[key]; ok {
		return i
	}
	g.seen[key] = len(g.nodes)
	g.nodes = append(g.nodes, n)
	return len(g.nodes) - 1
}

// key is what makes a state different. The texts and replies in it follow from
// the rest.
func (n *node) key() string {
	b := []byte{byte(n.saga.Phase)}
	for i, s := range n.saga.Steps {
		l := byte(0)
		if n.late[i] {
			l = 1
		}
		b = append(b, byte(s.Phase), byte(s.Attempt), byte(n.effects[i]), l)
	}
	if n.aborted {
		b = append(b, 'a')
	}
	if c := n.saga.Cause; c != nil {
		b = append(b, c.Branch+" "+c.Code...)
	}
	return string(b)
}

// path is how a node was reached first.
func (g *graph) path(i int) []choice {
	var p []choice
	for ; g.nodes[i].parent >= 0; i = g.nodes[i].parent {
		p = append(p, g.nodes[i].via)
	}
	slices.Reverse(p)
	return p
}

// expand checks a state and finds those that follow it.
func (g *graph) expand(i int) error {
	n := g.nodes[i]
	calls := n.saga.Outstanding(g.def)
	if err := g.checkRecovery(n.saga, calls); err != nil {
		return err
	}
	if len(calls) == 0 {
		if err := g.checkEnd(n); err != nil {
			return err
		}
	}
	for _, c := range g.choices(n, calls) {
		next, err := g.follow(n, c, calls)
		if err != nil {
			return fmt.Errorf("%s: %w", c.text(g.def), err)
		}
		next.parent, next.via = i, c
		if to := g.add(next); to != i {
			g.edges = append(g.edges, edge{from: i, to: to, via: c})
		}
	}
	return nil
}

// checkRecovery plays a crash: what is stored must ask for the same calls.
func (g *graph) checkRecovery(s saga.State, calls []txn.Call) error {
	data, err := s.Encode()
	if err != nil {
		return fmt.Errorf("the state cannot be stored: %w", err)
	}
	back, err := saga.DecodeState(g.def, data)
	if err != nil {
		return fmt.Errorf("the state cannot be loaded after a crash: %w", err)
	}
	if !reflect.DeepEqual(back.Outstanding(g.def), calls) {
		return fmt.Errorf("after a crash the calls are %v, before it they were %v", back.Outstanding(g.def), calls)
	}
	return nil
}

// checkEnd says whether a saga that waits for nothing may end like this.
func (g *graph) checkEnd(n node) error {
	for i, s := range g.def.Steps {
		switch {
		case n.saga.Phase == txn.Committed && n.effects[i] != stands:
			return fmt.Errorf("the saga is COMMITTED, and step %q does not stand", s.Name)
		case n.saga.Phase == txn.RolledBack && n.effects[i] == stands && s.Kind != saga.Retriable:
			return fmt.Errorf("the saga is ROLLED_BACK, and step %q still stands", s.Name)
		case n.saga.Steps[i].Phase == saga.Stuck:
			return fmt.Errorf("the saga is %v for a person to decide, because of step %q (%s): %s",
				n.saga.Phase, s.Name, s.Kind, n.saga.Steps[i].Error)
		}
	}
	if !n.saga.Phase.Finished() {
		return fmt.Errorf("the saga is %v and waits for nothing", n.saga.Phase)
	}
	return nil
}

// choices lists what can happen in a state.
func (g *graph) choices(n node, calls []txn.Call) []choice {
	var out []choice
	for _, c := range calls {
		add := func(k choiceKind) { out = append(out, choice{kind: k, step: c.Branch, op: c.Op}) }
		add(performed)
		if c.Op == txn.Do && n.effects[c.Branch] == nothing && g.cfg.Refuses(g.def.Steps[c.Branch]) {
			add(refused)
		}
		add(crashed)
		if limit := max(1, g.def.Steps[c.Branch].Retry.Attempts); c.Attempt <= limit {
			add(answerLost)
			add(callLost)
			add(died)
		}
	}
	for i, late := range n.late {
		if late {
			out = append(out, choice{cameLate, i, txn.Do}, choice{answerLate, i, txn.Do})
		}
	}
	if !n.aborted && !n.saga.Phase.Finished() {
		out = append(out, choice{kind: aborted})
	}
	return out
}

// follow returns the state after a choice.
func (g *graph) follow(n node, c choice, calls []txn.Call) (node, error) {
	n.effects, n.late = slices.Clone(n.effects), slices.Clone(n.late)
	r := txn.Replied{Branch: c.step, Op: c.op, Attempt: 1}
	for _, call := range calls {
		if call.Branch == c.step && call.Op == c.op && c.kind < cameLate {
			r.Attempt = call.Attempt
		}
	}
	switch c.kind {
	case aborted:
		n.aborted = true
		return n, n.advance(g.def, abortEvent())
	case refused:
		r.Outcome, r.Message = txn.Refused, "the participant refuses"
	case callLost:
		r = lostReply(r)
		n.late[c.step] = n.late[c.step] || c.op == txn.Do
	case died:
		r = lostReply(r)
	case answerLost:
		g.perform(&n, c, &r)
		r = lostReply(r)
	case crashed, cameLate:
		g.perform(&n, c, &r)
		n.late[c.step] = n.late[c.step] && c.kind != cameLate
		return n, nil
	case answerLate:
		n.late[c.step] = false
		g.perform(&n, c, &r)
	case performed:
		g.perform(&n, c, &r)
	}
	return n, n.advance(g.def, r)
}

func (n *node) advance(def *saga.Definition, ev txn.Event) error {
	next, err := n.saga.Advance(def, ev)
	if err != nil {
		return err
	}
	n.saga = next
	return next.Check(def)
}

func abortEvent() txn.Event {
	return txn.Abort{Reason: txn.Reason{Code: txn.CodeAborted, Message: "by the enumeration"}}
}

func lostReply(r txn.Replied) txn.Replied {
	r.Outcome, r.Reply, r.Message = txn.Unknown, nil, "nobody knows"
	return r
}

// perform is the model of a participant with its guard.
func (g *graph) perform(n *node, c choice, r *txn.Replied) {
	step, e := g.def.Steps[c.step], &n.effects[c.step]
	r.Outcome = txn.OK
	switch {
	case c.op == txn.Do && *e == gone:
		r.Outcome, r.Message = txn.Refused, "undone before it arrived"
	case c.op == txn.Do:
		*e = stands
		r.Reply = []byte(`{}`)
	case *e == stands && !g.cfg.Undoable(step):
		r.Outcome, r.Message, r.Reply = txn.Refused, "it has no undo, and it took effect", []byte(`{}`)
	default:
		*e = gone
	}
}

// allEnd reports a state from which no way leads to an end.
func (g *graph) allEnd() error {
	before := make([][]int, len(g.nodes))
	for _, e := range g.edges {
		before[e.to] = append(before[e.to], e.from)
	}
	ends := make([]bool, len(g.nodes))
	var todo []int
	for i, n := range g.nodes {
		if n.saga.Phase.Finished() {
			ends[i] = true
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, p := range before[i] {
			if !ends[p] {
				ends[p] = true
				todo = append(todo, p)
			}
		}
	}
	if i := slices.Index(ends, false); i >= 0 {
		return fmt.Errorf("the saga never ends, once it is %v\nafter\n%s", g.nodes[i].saga.Phase, pathText(g.def, g.path(i)))
	}
	return nil
}
