package sdktest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
)

// maxUnknown is how often in a row a handler may fail to answer a call that
// nothing disturbs.
const maxUnknown = 3

// Rig is what one path of an enumeration runs on: real participants with fresh
// databases, called without a coordinator or a network.
type Rig struct {
	t       testing.TB
	ctx     context.Context
	dbs     map[string]*database
	conns   map[string]*rigConn // by action
	check   func(committed bool) error
	running sync.WaitGroup
}

// DB returns the SQLite database of that name, in memory; see World.DB.
func (r *Rig) DB(name string) *sql.DB {
	r.t.Helper()
	if db := r.dbs[name]; db != nil {
		return db.DB
	}
	db, err := openMemory()
	if err != nil {
		r.t.Fatalf("sdktest: database %q: %v", name, err)
	}
	r.dbs[name] = db
	return db.DB
}

// Attend runs a participant until the path has ended.
func (r *Rig) Attend(p *sdk.Participant) {
	r.t.Helper()
	conn := newRigConn()
	ended := make(chan error, 1)
	r.running.Go(func() {
		err := p.Run(r.ctx, conn)
		conn.lose(err)
		ended <- err
	})
	select {
	case <-conn.attended:
		for _, a := range conn.actions {
			r.conns[a] = conn
		}
	case err := <-ended:
		r.t.Fatalf("sdktest: %v", err)
	}
}

// Check sets what is called when the path has ended: it returns an error when
// what the handlers left is wrong. committed says how the saga ended. All of
// its steps have taken effect then, or else none but retriable ones.
func (r *Rig) Check(check func(committed bool) error) { r.check = check }

// setDying makes the next commit of every database fail, or not.
func (r *Rig) setDying(dies bool) {
	for _, db := range r.dbs {
		db.dies.Store(dies)
	}
}

// runAll runs every edge of the graph, or as many as are allowed, and returns
// how many.
func (g *graph) runAll(t testing.TB) int {
	t.Helper()
	stride := (len(g.edges) + g.cfg.MaxRuns - 1) / g.cfg.MaxRuns
	if stride > 1 {
		t.Logf("sdktest: %d paths are more than MaxRuns %d: every %dth is run", len(g.edges), g.cfg.MaxRuns, stride)
	}
	runs := 0
	for i := 0; i < len(g.edges); i += max(stride, 1) {
		e := g.edges[i]
		runs++
		if err := g.run(t, append(g.path(e.from), e.via)); err != nil {
			t.Fatalf("sdktest: enumerate %q, with its handlers: %v", g.def.Name, err)
		}
	}
	return runs
}

// run takes one path through real handlers, and from its end the undisturbed
// way on.
func (g *graph) run(t testing.TB, path []choice) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &Rig{t: t, ctx: ctx, dbs: map[string]*database{}, conns: map[string]*rigConn{}}
	defer func() {
		cancel()
		r.running.Wait()
		for _, db := range r.dbs {
			_ = db.Close() // it was in memory
		}
	}()
	g.cfg.Handlers(r)
	x := &execution{graph: g, rig: r, saga: saga.New(g.def), late: map[int]txn.Call{}}
	err := x.follow(path)
	if err == nil {
		err = x.finish()
	}
	if err == nil && r.check != nil {
		if err = r.check(x.saga.Phase == txn.Committed); err != nil {
			err = fmt.Errorf("the saga is %v, and %w", x.saga.Phase, err)
		}
	}
	if err != nil {
		return fmt.Errorf("%w\nafter\n%s", err, pathText(g.def, x.done))
	}
	return nil
}

// execution is one path on its way.
type execution struct {
	*graph
	rig  *Rig
	saga saga.State
	late map[int]txn.Call // lost do calls, by step
	done []choice
}

var errDiverged = errors.New("the handlers took another way than the model")

// follow does what the path says for as long as the handlers answer as the
// model did. They need not: they may refuse by themselves.
func (x *execution) follow(path []choice) error {
	for _, c := range path {
		if err := x.step(c); errors.Is(err, errDiverged) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (x *execution) step(c choice) error {
	if c.kind == aborted {
		return x.advance(c, abortEvent())
	}
	call, ok := x.call(c)
	if !ok {
		return errDiverged
	}
	reply := txn.Replied{Branch: c.step, Op: c.op, Attempt: call.Attempt}
	switch c.kind {
	case refused:
		reply.Outcome, reply.Message = txn.Refused, "the participant refuses"
		return x.advance(c, reply)
	case callLost:
		if c.op == txn.Do {
			x.late[c.step] = call
		}
		return x.advance(c, lostReply(reply))
	case cameLate, answerLate:
		delete(x.late, c.step)
	}
	x.rig.setDying(c.kind == died)
	answer, err := x.rig.perform(call)
	if err != nil {
		return err
	}
	x.rig.setDying(false)
	switch c.kind {
	case crashed, cameLate:
		x.done = append(x.done, c)
		return nil
	case answerLost:
		answer = lostReply(reply)
	}
	return x.advance(c, answer)
}

// call finds the call that a choice is about.
func (x *execution) call(c choice) (txn.Call, bool) {
	if c.kind == cameLate || c.kind == answerLate {
		call, ok := x.late[c.step]
		return call, ok
	}
	for _, call := range x.saga.Outstanding(x.def) {
		if call.Branch == c.step && call.Op == c.op {
			return call, true
		}
	}
	return txn.Call{}, false
}

func (x *execution) advance(c choice, ev txn.Event) error {
	x.done = append(x.done, c)
	next, err := x.saga.Advance(x.def, ev)
	x.saga = next
	return err
}

// finish goes on undisturbed to the end, after which calls that are still lost
// arrive.
func (x *execution) finish() error {
	unknown := 0
	for calls := x.saga.Outstanding(x.def); len(calls) > 0; calls = x.saga.Outstanding(x.def) {
		c := calls[0]
		answer, err := x.rig.perform(c)
		if err != nil {
			return err
		}
		if answer.Outcome == txn.Unknown {
			if unknown++; unknown == maxUnknown {
				return fmt.Errorf("step %q: %s is not answered: %s", c.Name, c.Op, answer.Message)
			}
		} else {
			unknown = 0
		}
		if err := x.advance(choice{performed, c.Branch, c.Op}, answer); err != nil {
			return err
		}
	}
	for i, c := range x.late {
		x.done = append(x.done, choice{cameLate, i, txn.Do})
		if _, err := x.rig.perform(c); err != nil {
			return err
		}
	}
	for i, s := range x.saga.Steps {
		if s.Phase == saga.Stuck {
			return fmt.Errorf("the saga is %v for a person to decide, because of step %q: %s", x.saga.Phase, x.def.Steps[i].Name, s.Error)
		}
	}
	return nil
}
