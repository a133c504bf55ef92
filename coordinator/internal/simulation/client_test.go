package simulation

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/amends-dev/amends/outbox"
	"github.com/amends-dev/amends/saga"
	"github.com/amends-dev/amends/saga/txn"
	"github.com/amends-dev/amends/sdk"
)

// transfer is the input of every saga. Kind says which steps it has.
type transfer struct {
	Kind  string
	From  string
	To    string
	Cents int64
}

// kinds of transactions, all of which move money from left to right.
var kinds = []string{"line", "parallel", "pivot", "stuck", "tcc", "tx", "tcc", "line"}

var transferSaga = saga.Define("transfer", func(b *saga.Builder, in transfer) {
	b.Step("debit", left.move.With(order{in.From, -in.Cents}))
	credit := b.Step("credit", right.move.With(order{in.To, in.Cents}))
	switch in.Kind {
	case "parallel":
		credit.After()
		b.Step("note", left.move.With(order{in.From, 0})).After("debit", "credit").Attempts(4)
	case "pivot":
		credit.Pivot()
		b.Step("note", left.note.With(order{in.From, 0})).Retriable()
	case "stuck":
		b.Step("stamp", right.stamp.With(order{in.To, 0}))
		b.Step("veto", left.veto.With(order{in.From, 0}))
	}
})

// application starts transactions, one after the other.
func (w *world) application(i int) {
	p := w.newProcess(fmt.Sprintf("app%d", i))
	client := sdk.NewClient(&wire{w: w, from: p}, &sdk.ClientConfig{Logger: quiet})
	for k := range w.perApp {
		gid := fmt.Sprintf("g%d-%d", i, k)
		w.sleep(w.upTo(6*time.Second, "think", gid))
		in := transfer{
			Kind: kinds[w.pick(len(kinds), "kind", gid)], Cents: 1 + int64(w.pick(50, "cents", gid)),
			From: fmt.Sprintf("left%d", w.pick(accounts, "from", gid)), To: fmt.Sprintf("right%d", w.pick(accounts, "to", gid)),
		}
		w.note(gid, func(f *fact) { f.kind, f.cents = in.Kind, in.Cents })
		w.say(p.id, "begins %s: %s %s -> %s %d", gid, in.Kind, in.From, in.To, in.Cents)
		switch in.Kind {
		case "tcc":
			w.runTCC(p, client, gid, in)
		case "tx":
			w.startTx(p, gid, in)
		default:
			w.start(p, client, gid, in)
		}
	}
}

// start starts a saga and waits for a while.
func (w *world) start(p *process, client *sdk.Client, gid string, in transfer) {
	cfg := &sdk.StartConfig{GID: gid}
	if w.happens(0.2, "timeout", gid) {
		cfg.Timeout = w.between(100*time.Millisecond, 10*time.Second, "timeout", gid)
	}
	ctx, cancel := context.WithTimeout(w.ctx, w.between(2*time.Second, time.Minute, "patience", gid))
	defer cancel()
	run, err := sdk.Start(ctx, client, transferSaga, in, cfg)
	w.say(p.id, "start of %s: %v", gid, err)
	if err != nil {
		w.heard(gid, err)
		return
	}
	w.note(gid, func(f *fact) { f.acked = true })
	if w.happens(0.15, "abort", gid) {
		w.sleep(w.upTo(3*time.Second, "abort", gid))
		w.say(p.id, "abort of %s: %v", gid, run.Abort(ctx, "changed its mind"))
	}
	err = run.Wait(ctx)
	w.say(p.id, "wait for %s: %v", gid, err)
	w.heard(gid, err)
}

// runTCC tries at both banks, and commits, changes its mind, or dies.
func (w *world) runTCC(p *process, client *sdk.Client, gid string, in transfer) {
	errMind := errors.New("changed its mind")
	patience := w.between(2*time.Second, 40*time.Second, "patience", gid)
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	err := sdk.RunTCC(ctx, client, "hold", func(ctx context.Context, t *sdk.TCC) error {
		w.note(gid, func(f *fact) { f.acked = true })
		if _, err := sdk.TryNamed(ctx, t, "debit", left.hold, order{in.From, -in.Cents}); err != nil {
			return err
		}
		if _, err := sdk.TryNamed(ctx, t, "credit", right.hold, order{in.To, in.Cents}); err != nil {
			return err
		}
		if w.happens(0.15, "changes its mind", gid) {
			return errMind
		}
		w.sleep(w.upTo(2*time.Second, "decide", gid))
		return nil
	}, &sdk.TCCConfig{GID: gid, Timeout: w.between(3*time.Second, 30*time.Second, "deadline", gid), EndTimeout: patience})
	w.say(p.id, "tcc %s: %v", gid, err)
	w.heard(gid, err)
}

// startTx begins a saga together with an order of the bank on the left.
func (w *world) startTx(p *process, gid string, in transfer) {
	db := w.banks[0].open(p)
	box := outbox.New(outbox.SQLite, nil)
	err := outbox.InTx(w.ctx, db, nil, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(w.ctx, `INSERT INTO orders VALUES (?, '')`, gid); err != nil {
			return err
		}
		if _, err := sdk.StartTx(w.ctx, box, tx, transferSaga, in, &sdk.StartConfig{GID: gid}); err != nil {
			return err
		}
		if w.happens(0.2, "order fails", gid) {
			return errUpset
		}
		return nil
	})
	w.say(p.id, "order %s: %v", gid, err)
	if err := db.Close(); err != nil {
		w.violation("%s: close: %v", p.id, err)
	}
	if p.dead.Load() { // its database killed it: there is another one at once
		w.newProcess(p.name)
	}
}

// fact is what is known of a transaction from outside.
type fact struct {
	kind  string
	cents int64
	acked bool      // its start was acknowledged
	said  txn.State // how it ended, as a client was told; 0: it was not
}

func (w *world) note(gid string, change func(f *fact)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.facts[gid]
	if f == nil {
		f = &fact{}
		w.facts[gid] = f
		w.gids = append(w.gids, gid)
	}
	change(f)
}

// heard notes what a client was told about an end.
func (w *world) heard(gid string, err error) {
	var rb *sdk.RolledBackError
	switch {
	case err == nil:
		w.note(gid, func(f *fact) { f.said = txn.Committed })
	case errors.As(err, &rb):
		w.note(gid, func(f *fact) { f.said = txn.RolledBack })
	}
}
